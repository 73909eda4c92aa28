"""Files become examples, examples batches; what teachers and the student itself add to them."""

from fastdistill.train.data.dataset import Dataset, make_data, read_data
from fastdistill.train.data.packing import Batches
from fastdistill.train.data.rollouts import OnPolicy, rollouts
from fastdistill.train.data.teachers import Teacher, open_teacher_file, write_teacher_file

__all__ = [
    "Batches",
    "Dataset",
    "OnPolicy",
    "Teacher",
    "make_data",
    "open_teacher_file",
    "read_data",
    "rollouts",
    "write_teacher_file",
]
