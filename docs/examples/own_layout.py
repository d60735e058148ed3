"""A layout of one's own, as a plug-in: a folder of grey images for each class.

trustsweep prepare IMAGES --layout class-folders --plugin docs/examples/own_layout.py --out data/own
"""

from trustsweep import LAYOUTS, Layout, Sample, TaskName, UserError
from trustsweep.data_pipelines.preprocess import resize_image
from trustsweep.data_pipelines.readers.files import digest, opaque
from trustsweep.data_pipelines.readers.images import read_grey
from trustsweep.data_pipelines.schema import PatientSource


class ClassFolders(Layout):
    """`<class>/<image>.png`, as torchvision's ImageFolder reads them, without a given split."""

    name = "class-folders"
    tasks = (TaskName.CLASSIFICATION,)
    licence = citation = "your own"
    # Each image counts as a patient unless --patients says who is in it.
    patients = PatientSource.NONE
    takes_patients = True

    def __init__(self, folder, *, size, seed):
        super().__init__(folder, size=size, seed=seed)
        self.files = sorted(folder.glob("*/*.png")) if folder else []
        self.classes = tuple(sorted({file.parent.name for file in self.files}))
        if len(self.classes) < 2:
            raise UserError(f"{folder}: give a folder that holds one folder of images per class.")

    def cases(self):
        yield from self.files

    def image_files(self):
        yield from self.files

    def load(self, case):
        own = opaque(self.name, case.relative_to(self.folder).as_posix())
        yield Sample(
            sample_id=own,
            patient_id=self._listed_patient(case) or own,
            site="unstated",
            image=resize_image(read_grey(case), self.size),
            label=self.classes.index(case.parent.name),
            source=case,
        )

    def source_digest(self):
        return digest(self.folder, self.files)


LAYOUTS.register("class-folders", ClassFolders)
