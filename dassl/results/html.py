"""x"""


def write_report(*a): ...
