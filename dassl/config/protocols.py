"""Names of protocols (``configs/protocols/``) that mean more than their configuration keys."""

BASE_TO_NEW = "base_to_new"  # trained on half of the classes, then tested on the others too
LEAVE_ONE_TASK_OUT = "leave_one_task_out"  # trained on all tasks but one, then tested on that one
TRANSFER = "transfer"  # trained on source tasks, then on target tasks from there and from scratch
TASK_GROUPS = "task_groups"  # trained on all tasks, on groups of them and on each alone
