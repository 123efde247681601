"""What kernels that read the image where it lies have in common."""


def unstaged_stores(
    dtype: str, rounding: str, residual: str | None, table: bool, **_: object
) -> bool:
    """Whether kernels that read the image where it lies have such an output stage (the fields of `topi.OutputForm`):
    one that packs codes, and reads nothing else for them."""
    return dtype in ("uint8", "int8") and rounding == "rne" and residual is None and not table
