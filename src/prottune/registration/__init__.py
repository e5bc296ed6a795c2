"""Models become versions of the registered model `prottune`, and three aliases say which is which.

    challenger   the version that is being tried
    champion     the version that serves
    previous     the champion before it, for `rollback`

A version carries as tags what it was made from (digests of data, settings and code), how it scored and what
the gate said, and a model card as its description. docs/registry.md has the rules.
"""
