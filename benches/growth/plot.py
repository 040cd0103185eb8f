"""Small multiples as one SVG: what an event costs against what grows, both axes logarithmic, so that a cost that does
not grow is level, and one that grows with its input is a straight slope."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT, COLUMNS = 330, 230, 3
LEFT, RIGHT, TOP, BOTTOM = 48, 26, 34, 40
LINES = [
    ("store", "khala", "#1f5fbf", "", "Khala"),
    ("store", "redis", "#c0392b", "", "Redis"),
    ("streams", "khala", "#1f5fbf", "5 3", "Khala, with event streams"),
    ("streams", "redis", "#c0392b", "5 3", "Redis, with event streams"),
]


def power(value):
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def scale(low, high, start, end):
    low, high = math.log10(low), math.log10(high)
    return lambda value: start + (math.log10(value) - low) / ((high - low) or 1) * (end - start)


def text(x, y, words, anchor="middle", size=11, color="#333"):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}" fill="{color}">{escape(words)}</text>'


def panel(what, rows, x0, y0):
    """One series: sizes across, CPU microseconds an event upwards."""
    costs = [row[stage]["microseconds"][who] for row in rows for stage, who, *_ in LINES if stage in row]
    costs = [cost for cost in costs if cost]
    low, high = 10 ** math.floor(math.log10(min(costs))), 10 ** math.ceil(math.log10(max(costs) * 1.01))
    across = scale(rows[0]["size"], rows[-1]["size"], x0 + LEFT, x0 + WIDTH - RIGHT)
    up = scale(low, high, y0 + HEIGHT - BOTTOM, y0 + TOP)
    parts = [text(x0 + LEFT, y0 + 20, what, "start", 12, "#111")]
    level = low
    while level <= high * 1.001:
        parts.append(f'<line x1="{x0 + LEFT}" x2="{x0 + WIDTH - RIGHT}" y1="{up(level):.1f}" y2="{up(level):.1f}" stroke="#ddd"/>')
        parts.append(text(x0 + LEFT - 6, up(level) + 4, power(level), "end"))
        level *= 10
    for row in rows:
        parts.append(text(across(row["size"]), y0 + HEIGHT - BOTTOM + 16, power(row["size"])))
    for stage, who, color, dash, _ in LINES:
        points = [(across(row["size"]), up(row[stage]["microseconds"][who])) for row in rows if row.get(stage, {}).get("microseconds", {}).get(who)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in points]
    return parts


def draw(series):
    """`series`: name to (what grows, rows)."""
    down = math.ceil(len(series) / COLUMNS)
    width, height = WIDTH * min(COLUMNS, len(series)), HEIGHT * down + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    x = 12
    for _, _, color, dash, words in LINES:
        parts.append(f'<line x1="{x}" x2="{x + 26}" y1="16" y2="16" stroke="{color}" stroke-width="2" stroke-dasharray="{dash}"/>')
        parts.append(text(x + 32, 20, f"{words}" + (": CPU µs an event" if x == 12 else ""), "start", 12))
        x += 62 + 7 * len(words) + (112 if x == 12 else 0)
    for place, (what, rows) in enumerate(series.values()):
        parts += panel(what, rows, WIDTH * (place % COLUMNS), 40 + HEIGHT * (place // COLUMNS))
    return "\n".join([*parts, "</svg>", ""])
