"""The error browser of the page: sampled mistakes by task, model and type, with filters."""

from html import escape
from typing import Any

from evaluation.details import Detail
from evaluation.results import Report
from tasks.base import kind_of

_CLIP = 400  # letters of a text shown in a row

# The filters are part of the address (#browser?task=ner&type=missed&text=Bakı), so that a view can be shared. Without the
# script everything is shown, folded by task and model.
SCRIPT = """
(function () {
  const form = document.getElementById("filters"), count = document.getElementById("shown");
  if (!form) return;
  const keys = ["task", "model", "right", "type", "text"];
  function apply() {
    const want = Object.fromEntries(keys.map((key) => [key, form.elements[key].value]));
    const narrowed = keys.some((key) => want[key]);
    let shown = 0;
    for (const box of document.querySelectorAll("#browser details[data-task]")) {
      const fold = (text) => text.toLocaleLowerCase(box.dataset.code);
      const fits = (!want.task || box.dataset.task === want.task) && (!want.model || box.dataset.model === want.model);
      let here = 0;
      for (const row of box.querySelectorAll("tbody tr")) {
        const named = fold(row.dataset.type).includes(fold(want.type));
        const known = !want.right || row.dataset.right.split("\t").includes(want.right);
        const keep = fits && named && known && fold(row.textContent).includes(fold(want.text));
        row.hidden = !keep;
        here += keep;
      }
      box.hidden = !here;
      box.open = narrowed && here > 0 && here <= 200;
      shown += here;
    }
    count.textContent = shown + " examples";
  }
  function read() {
    const query = new URLSearchParams(location.hash.split("?")[1] || "");
    for (const key of keys) form.elements[key].value = query.get(key) || "";
    apply();
  }
  form.addEventListener("input", function () {
    const query = new URLSearchParams();
    for (const key of keys) if (form.elements[key].value) query.set(key, form.elements[key].value);
    history.replaceState(null, "", "#browser?" + query);
    apply();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", read);
  form.hidden = false;
  read();
})();
"""


def browser(report: Report, details: dict[tuple[str, str], Detail]) -> str:
    """The section's HTML: a form that the script makes visible, then a folded table for each task and model."""
    boxes, types, models, others = [], set(), [], []
    for task in report.tasks:
        for model in report.models:
            cell, detail = report.cells.get((model, task)), details.get((model, task))
            if cell is None or cell.baseline or not detail.mistakes:
                continue
            seeds, kind, rows = len(cell.runs), report.kinds[task], []
            solved = {  # (n,) of every other model: right on most seeds
                other: 2 * details[other, task].wrong < len(report.cells[other, task].runs)
                for other in report.models
                if other != model and (other, task) in details
            }
            others += [other for other in solved if other not in others]
            models = [*models, *([] if model in models else [model])]
            for mistake in detail.mistakes:
                types.add(mistake.kind)
                right = [other for other, known in solved.items() if known[mistake.number]]
                rows.append(_row(mistake.row, kind, mistake.kind, f"{int(detail.wrong[mistake.number])} of {seeds}", right))
            names = ("type", "id", "example", "gold", "predicted", "wrong seeds", "right in")
            code = escape(report.own[task].language.code)  # for the script's lower case
            head = "".join(f"<th>{name}</th>" for name in names)
            boxes.append(
                f'<details data-task="{escape(task)}" data-model="{escape(model)}" data-code="{code}">'
                f"<summary>{escape(task)}, {escape(model)}: "
                f"{len(rows)} examples (seed {cell.runs[0].seed})</summary>"
                f'<div class="wide"><table class="errors"><thead><tr>{head}</tr></thead>'
                f"<tbody>{''.join(rows)}</tbody></table></div></details>"
            )
    if not boxes:
        return "<p>No mistake of a trained model to show.</p>"
    form = (
        '<form id="filters" hidden>'
        f"<label>task {_select('task', report.tasks)}</label> <label>model {_select('model', models)}</label> "
        f"<label>right in {_select('right', [name for name in report.models if name in others])}</label> "
        '<label>type <input name="type" list="types" size="28"></label> <label>text <input name="text" size="28"></label> '
        '<output id="shown"></output>'
        f'<datalist id="types">{"".join(f"<option>{escape(name)}</option>" for name in sorted(types))}</datalist></form>'
    )
    note = "Up to 20 examples of each type of mistake, drawn from the first seed of each model with a fixed seed. "
    note += "Right in: the other models that have the whole example right on more than half of their seeds."
    return f'<p class="quiet">{note}</p>{form}{"".join(boxes)}'


def _select(name: str, values: list[str]) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
    return f'<select name="{name}"><option value="">all</option>{options}</select>'


def _row(row: dict[str, Any], kind: str, what: str, wrong: str, right: list[str]) -> str:
    parts, gold, pred = kind_of(kind).shown(row)
    shown = " ".join(f"<mark>{escape(text)}</mark>" if marked else escape(clip(text)) for text, marked in parts)
    cells = [escape(what), escape(str(row["id"])), shown, escape(clip(gold)), escape(clip(pred)), wrong]
    cells.append(escape(", ".join(right)) or "none")
    places = ("", "", "text", "text", "text", "", "text")
    body = "".join(f'<td class="{place}">{cell}</td>' for place, cell in zip(places, cells, strict=True))
    return f'<tr data-type="{escape(what)}" data-right="{escape(chr(9).join(right))}">{body}</tr>'


def clip(text: str) -> str:
    """The beginning of the text."""
    return text if len(text) <= _CLIP else text[:_CLIP] + " …"
