"""SVG plots of the rows that have a goal: one bar per row, from the goal to what was measured, on a logarithmic scale; right
of the line is better. Whiskers show the least and the most of all pairs. Readable on light and dark pages."""

import math, os
from html import escape

from measure import cells

LABEL, SCALE, TEXT, ROW, TOP = 400, 360, 140, 30, 46
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 14px } .small { font-size: 10px; fill: #57606a } .end { text-anchor: end }
  .middle { text-anchor: middle } .grid { stroke: #57606a; stroke-opacity: .25 }
  .goal { stroke: #57606a; stroke-width: 1.5 }
  .pass { fill: #2da44e } .missed { fill: #cf222e } .whisker { stroke: #24292f; stroke-width: 1.2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .grid, .goal { stroke: #9198a1 } .whisker { stroke: #e6edf3 }
    .pass { fill: #3fb950 } .missed { fill: #f85149 }
  }"""


def scores(row):
    """(measured, least, most), where 1 is the goal and more is better."""
    if row.get('at_least') is not None:
        return tuple(row[key] / row['at_least'] for key in ('value', 'low', 'high'))
    return tuple(row['at_most'] / max(row[key], row['at_most'] / 1e3) for key in ('value', 'high', 'low'))


def has_goal(row):
    return 'skipped' not in row and (row.get('at_least') is not None or row.get('at_most') is not None)


def draw(title, rows):
    """The text of an SVG file."""
    seen = [scores(row) for row in rows]
    least = min(0.5, *(score[1] for score in seen))
    most = max(2, *(score[2] for score in seen))
    low, high = math.floor(math.log2(max(least, 1 / 64))), math.ceil(math.log2(min(most, 4096)))
    width, height = LABEL + SCALE + TEXT, TOP + ROW * len(rows) + 28

    def x(score):
        at = (math.log2(max(score, 1e-9)) - low) / (high - low)
        return LABEL + SCALE * min(max(at, 0), 1)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'role="img">', f'<title>{escape(title)}</title>', f'<style>{STYLE}\n</style>',
           f'<text class="title" x="8" y="20">{escape(title)}</text>']
    bottom = TOP + ROW * len(rows)
    step = 1 if high - low <= 8 else 2
    for power in range(low, high + 1):
        if power % step == 0:
            name = 'goal' if power == 0 else f'{2 ** power} ×' if power > 0 else f'1/{2 ** -power}'
            kind, at = 'grid' if power else 'goal', x(2 ** power)
            out.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
            out.append(f'<text class="small middle" x="{at:.1f}" y="{bottom + 16}">{name}</text>')
    for i, (row, (score, worst, best)) in enumerate(zip(rows, seen)):
        what, goal, measured = cells(row)[:3]
        y, start, end = TOP + ROW * i, x(1), x(score)
        out.append(f'<text class="end" x="{LABEL - 10}" y="{y + 11}">{escape(what)}</text>')
        out.append(f'<text class="small end" x="{LABEL - 10}" y="{y + 22}">{escape(goal)}</text>')
        kind, left, length = 'pass' if row['good'] else 'missed', min(start, end), max(abs(end - start), 1)
        out.append(f'<rect class="{kind}" x="{left:.1f}" y="{y + 2}" width="{length:.1f}" height="14" rx="2"/>')
        if worst != best:
            middle = y + 9
            out.append(f'<path class="whisker" d="M{x(worst):.1f} {middle}H{x(best):.1f}M{x(worst):.1f} {middle - 4}v8'
                       f'M{x(best):.1f} {middle - 4}v8"/>')
        out.append(f'<text x="{LABEL + SCALE + 10}" y="{y + 13}">{escape(measured)}</text>')
    return '\n'.join(out + ['</svg>', ''])


def draw_all(rows, folder):
    """One file per part: folder/<part>.svg; returns the parts."""
    os.makedirs(folder, exist_ok=True)
    drawn = []
    for part in dict.fromkeys(row['part'] for row in rows):
        shown = [row for row in rows if row['part'] == part and has_goal(row)]
        if shown:
            with open(os.path.join(folder, f'{part}.svg'), 'w') as file:
                file.write(draw(f'{part}: measured, as a multiple of the goal', shown))
            drawn.append(part)
    return drawn
