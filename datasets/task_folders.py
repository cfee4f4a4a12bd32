"""TaskFolders: a user's own images in several tasks, one folder per task."""

from __future__ import annotations

from pathlib import Path

from dassl.config import CfgNode
from dassl.data import DATASET_REGISTRY
from dassl.utils import UserError

from ._core.base import ImageTasks, TaskGroup
from ._core.folders import folders_in, loose_images, report_unread
from ._core.layout import find_folder


@DATASET_REGISTRY.register()
class TaskFolders(TaskGroup):
    """Your own images in several tasks: root/task/class/image.

    Each task is an ImageFolder, with its own ``task_name.txt`` and ``classnames.txt``.
    """

    @classmethod
    def member_configs(cls, cfg) -> list[tuple[type[ImageTasks], CfgNode]]:
        """An ImageFolder per folder, in sorted order."""
        root = find_folder(cfg.DATASET.ROOT, "", "", cls.__name__)
        tasks = folders_in(root)
        if not tasks:
            raise UserError(f"{root} has no folder in it; expected one folder per task")
        report_unread(root, loose_images(root))
        members = []
        for task in tasks:
            own = cfg.clone()
            own.DATASET.ROOT = str(Path(root, task))
            members.append((DATASET_REGISTRY.get("ImageFolder"), own))
        return members
