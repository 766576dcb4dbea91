"""What the generator could have sent, beside what was asked of it, in one line."""

from flashsale.run.generator import CalibrationFigures


def headroom_line(found: CalibrationFigures) -> str:
    """Capacity; then the peak of an open plan, or how long it takes what leaves at once."""
    line = f"could send {found.capacity_per_s:,.0f}/s"
    if found.headroom is not None and found.peak_per_s is not None:
        line += f"; the plan's peak is {found.peak_per_s:,.0f}/s: headroom {found.headroom:.1f}×"
    elif found.burst_ms is not None:
        line += f"; what leaves at once takes it {found.burst_ms:,.0f} ms to send and read"
    return f"{line} (calibrated in {found.took_ms / 1000:.1f} s)"
