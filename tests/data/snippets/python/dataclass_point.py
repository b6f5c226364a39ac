from dataclasses import dataclass
import math


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0

    def distance(self, other: "Point") -> float:
        return math.hypot(self.x - other.x, self.y - other.y)
