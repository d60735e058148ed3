"""From a folder of medical images to the Pareto front of robustness against calibration.

The code lives in the packages below (`trustsweep.trainables`, ...). In a checkout, and so in the
working directory of a job, their folders stand beside this one; in a wheel, within it.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
if not (_HERE / "trainables").is_dir():
    __path__.append(str(_HERE.parent))
