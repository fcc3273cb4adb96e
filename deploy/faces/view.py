"""A picture at the detector's scale, made only when somebody asks for it: with one face in view nobody does mostly."""

from functools import cached_property

import cv2
import numpy as np

from deploy.faces.flow import Grey
from student.detect import Picture
from student.face import SEARCH_PX, shrink


class View:
    """One picture; to be used within its frame, for a camera may fill the same memory again."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.scale = min(1.0, SEARCH_PX / max(picture.shape[:2]))
        """Of the small picture."""

    @cached_property
    def small(self) -> Picture:
        """At most SEARCH_PX wide or high, quickly: what lies between detections needs no exact mean."""
        if self.scale in (1.0, 0.5):
            return shrink(self.picture)[0]
        share = self.scale
        way = cv2.INTER_LINEAR
        return np.asarray(cv2.resize(self.picture, None, fx=share, fy=share, interpolation=way), np.uint8)

    @cached_property
    def grey(self) -> Grey:
        """Brightness of the small picture."""
        return np.asarray(cv2.cvtColor(self.small, cv2.COLOR_RGB2GRAY), np.uint8)
