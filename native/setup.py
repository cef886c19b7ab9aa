"""The extension module, for the stable ABI of Python 3.11: one wheel per platform serves every later Python."""

from setuptools import Extension, setup

setup(
    packages=[],
    ext_modules=[
        Extension(
            "django_asherah_native",
            ["rowcipher.c"],
            libraries=["crypto"],
            define_macros=[("Py_LIMITED_API", "0x030b0000")],
            extra_compile_args=["-std=gnu11", "-Wall", "-Wextra"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
