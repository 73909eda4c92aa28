"""What pyproject.toml cannot say: the cffi module and the abi3 tag."""

import sysconfig

from setuptools import setup

# Free-threaded Pythons have no stable ABI.
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["csrc/build_native.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if limited else {},
)
