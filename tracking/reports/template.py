"""The frame and the looks of a report's page."""

from __future__ import annotations

from string import Template

# Nothing is fetched and no script runs, whatever a model's name or an error message holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #ffffff; --soft: #5b5b66; --line: #d9d9e0; --tint: #f4f4f7;
  --shade: rgba(0, 0, 0, .28) }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf1; --paper: #17171b; --soft: #a5a5b2; --line: #3a3a44; --tint: #212128;
    --shade: rgba(255, 255, 255, .35) }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1rem 1.25rem 4rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { line-height: 1.2; margin: 1rem 0 .25rem } h2 { margin: 2.5rem 0 .5rem; line-height: 1.25 }
h3 { margin: 1rem 0 .25rem; font-size: 1rem }
p { max-width: 45rem } .soft, figcaption, caption { color: var(--soft); text-align: left }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; list-style: none }
a { color: inherit }
/* What lies beyond the edge of a table throws a shadow on it. */
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; background:
  linear-gradient(to right, var(--paper) 30%, transparent) left / 2.5rem 100% local no-repeat,
  linear-gradient(to left, var(--paper) 30%, transparent) right / 2.5rem 100% local no-repeat,
  linear-gradient(to right, var(--shade), transparent) left / .9rem 100% scroll no-repeat,
  linear-gradient(to left, var(--shade), transparent) right / .9rem 100% scroll no-repeat }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; min-width: 100% }
caption { padding: .5rem .75rem }
/* A wide table scrolls, its caption stays. */
caption span { position: sticky; left: .75rem; display: inline-block; max-width: calc(100vw - 4.5rem) }
th, td { padding: .35rem .75rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line) }
td { overflow-wrap: normal } .short { white-space: nowrap }
thead th { background: var(--tint); white-space: nowrap }
.number { text-align: right; white-space: nowrap }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem }
figure { margin: 0; max-width: 42rem } svg { width: 100%; height: auto; display: block }
@media (max-width: 40rem) {
  .first th, .first td { padding: .35rem .4rem }
  .first td:not(.number) { white-space: normal; overflow-wrap: anywhere; min-width: 4.5rem; max-width: 7.5rem }
}
details { margin: .75rem 0 } summary { cursor: pointer }
pre { background: var(--tint); padding: .75rem; border-radius: .4rem; overflow-x: auto; font-size: .8125rem }
dt { font-weight: 600; margin-top: .5rem } dd { margin: 0; max-width: 45rem }
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="soft">$lead</p>
<nav aria-label="Contents"><ul>$contents</ul></nav>
</header>
<main>
$sections
</main>
</body>
</html>
""")
