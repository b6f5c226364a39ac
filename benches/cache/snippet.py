def merge(intervals):
    """Joins the intervals that overlap or touch."""
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class Calendar:
    def __init__(self):
        self.busy = []

    def book(self, start, end):
        if start >= end:
            raise ValueError("an appointment ends after it starts")
        self.busy = merge(self.busy + [(start, end)])

    def is_free(self, at):
        return not any(start <= at < end for start, end in self.busy)
