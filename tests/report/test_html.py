from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.report.html import write_report

from .made import add_heads

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Tags with their attributes, ids, and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        self.text = re.sub(r"[ \n]+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "wbr", "path", "use", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        self.words.append(data)

    def count(self, tag, **having):
        return sum(t == tag and all(a.get(k) == v for k, v in having.items()) for t, a in self.tags)


@pytest.fixture(scope="module")
def page(report):
    return Page(report)


def test_page_asks_for_nothing_outside_itself(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:60])
        assert not any(name.startswith("on") for name in attributes)
        assert not re.search(r"url\((?!#)", attributes.get("style", ""))
    styles = "".join(word for word in page.words if "{" in word)
    assert "@import" not in styles
    assert "http" not in styles
    policy = next(a["content"] for t, a in page.tags if "content-security" in str(a).lower())
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_so_that_no_figure_borrows_from_another(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for target in re.findall(r"#([\w-]+)\)?$", attributes.get("href", "")):
            assert target in ids


def test_every_figure_is_there(page, evaluation, run):
    cases = json.loads((evaluation / "evaluation.json").read_text())["models"]
    pictured = sum(len(model["cases"]) for model in cases)
    # Two curves and intervals; scores and calibration of two models; eight terms; of the search its
    # history, the settings of two systems, the importance of one.
    assert page.count("svg") == 3 + 2 * 2 + 8 + 4
    # Three pictures a case, two legends; restorations and drawings at two reports, the last walk.
    assert page.count("img") == 3 * pictured + 2 + 2 + 2 + 1
    assert pictured > 12


def test_every_picture_says_in_words_what_it_shows(page):
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    said = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    for newest in (
        "Restorations after 20\u202f000 images: images outside the test set (input), what each",
        "Samples after 20\u202f000 images: images drawn from codes of the latent prior",
        "Latent walk after 20\u202f000 images: images drawn along a walk",
    ):
        assert sum(words.startswith(newest) for words in said) == 1, newest
    assert {"Restorations after 10\u202f000 images", "Samples after 10\u202f000 images"} <= set(
        said
    )


@pytest.mark.parametrize("reports", [1, 2, 7, 40])
def test_a_run_shows_its_newest_pictures_and_at_most_six_of_a_kind(run, tmp_path, reports):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "samples")
    (pixels,) = sorted((folder / "latent/walk").iterdir())[-1:]
    for kind in ("samples", "latent/samples", "latent/walk"):
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir()
        for images in range(1, reports + 1):
            shutil.copy(run / "latent/walk" / pixels.name, folder / kind / f"{images:012d}.png")
    page = Page(write_report([folder], tmp_path / "r.html"))
    said = [a["alt"].split(":")[0] for tag, a in page.tags if tag == "img"]
    each = min(reports, 6)
    assert len(said) == each + each + 1
    for kind in ("Restorations", "Samples", "Latent walk"):
        shown = [words for words in said if words.startswith(kind)]
        assert shown[0] == f"{kind} after {reports} images", "the newest comes first"
        assert len(set(shown)) == len(shown)


def test_a_run_without_latent_pictures_says_nothing_of_them(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("latent"))
    page = Page(write_report([tmp_path / "run"], tmp_path / "r.html"))
    assert "Restorations" in page.text
    assert "Latent walk" not in page.text
    assert page.count("img") == 2


def test_failures_come_before_successes(page):
    places = [page.text.index(f"{name}:") for name in ("Missed", "False alarms", "Found", "Passed")]
    assert places == sorted(places)


def test_page_tells_what_the_threshold_means_and_who_is_better(page):
    for text in (
        "34 normal images held out from training",
        "at most 5\u00a0% of normal images",
        "with 95\u00a0% certainty at most 10.8\u00a0%",
        "pca@2 is better",
        "Chosen checkpoint: highest AUCp of held-out normals",
        "No label was read for this choice.",
        "model.weights.gradient_penalty",
        "digit 9",
        "8d0fa3b1c2d4e5f6",
    ):
        assert text in page.text, text


def test_search_table_holds_the_ten_best_trials_best_first(sweep, tmp_path):
    page = Page(write_report([sweep], tmp_path / "r.html"))
    trials = json.loads((sweep / "sweep.json").read_text())["trials"]
    values = sorted((t["value"] for t in trials if t["value"] is not None), reverse=True)[:10]
    table = page.text[page.text.index("Best 10 of 24 trials") :]
    shown = re.findall(r"(?:f-anogan|ganomaly)(?: ★)? ([01]\.\d{3})", table)
    assert shown == [f"{value:.3f}" for value in values]


@pytest.mark.parametrize("kind", ["evaluation", "run", "sweep"])
def test_each_source_alone_makes_a_page(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    page = Page(write_report([folder], tmp_path / "r.html"))
    headings = {"evaluation": "Metrics with", "run": "Training:", "sweep": "Search:"}
    for name, heading in headings.items():
        assert (heading in page.text) is (name == kind)


def test_a_json_file_stands_for_its_folder(sweep, tmp_path):
    by_file = write_report([sweep / "sweep.json"], tmp_path / "file.html")
    by_folder = write_report([str(sweep)], str(tmp_path / "folder.html"))
    assert by_file.read_bytes() == by_folder.read_bytes()


def test_a_run_that_has_just_begun_makes_a_page(run, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(run / "experiment.json", tmp_path / "new")
    page = Page(write_report([tmp_path / "new"], tmp_path / "r.html"))
    assert "No report yet" in page.text
    assert page.count("svg") == 0


def test_a_line_that_is_still_being_written_is_left_out(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "encoder", "images": 21')
    page = Page(write_report([tmp_path / "run"], tmp_path / "r.html"))
    assert "20\u202f000 images in 50 s" in page.text


def test_an_evaluation_without_pictures_or_calibration_makes_a_page(evaluation, tmp_path):
    content = json.loads((evaluation / "evaluation.json").read_text())
    for model in content["models"]:
        model |= {"threshold": None, "map_range": None, "cases": []}
        model["scores"]["p_values"] = None
    content |= {"baselines": [], "paired": []}
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    page = Page(write_report([tmp_path], tmp_path / "r.html"))
    assert page.count("svg") == 3 + 2
    assert page.count("img") == 0
    assert "flagged as abnormal when" not in page.text


def test_metrics_for_comparison_are_folded_and_only_what_is_shown_is_explained(page):
    table, folded = (page.text.index(words) for words in ("Metrics with", "Further metrics"))
    assert table < page.text.index("Average precision") < folded
    assert folded < page.text.index("PR-AUC") < page.text.rindex("How to read this")
    assert "with straight lines between thresholds" in page.text
    assert "oracle" not in page.text, "nobody measured it"
    assert page.text.count("Images/s") == 1


def test_figures_of_patients_and_corrected_tests_are_shown_where_there_are_some(
    page, evaluation, tmp_path
):
    assert "p, DeLong" in page.text
    assert "0.004 0.008 0.0031" in page.text
    assert "By patient" not in page.text
    content = json.loads((evaluation / "evaluation.json").read_text())
    figure = {"value": 0.8765, "low": 0.7, "high": 0.95}
    content["models"][0]["by_group"] = {"groups": 17, "abnormal": 6, "image_auroc": figure,
                                        "image_ap": figure}  # fmt: skip
    for model in content["baselines"]:
        del model["by_group"]  # as older evaluations
    for pair in content["paired"]:
        del pair["p_holm"], pair["p_delong"]
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    other = Page(write_report([tmp_path], tmp_path / "r.html"))
    assert "By patient or other group: 17, 6 of them" in other.text
    assert "0.876" in other.text or "0.877" in other.text
    assert "0.004 – –" in other.text


def test_maps_without_a_fixed_scale_are_not_coloured(evaluation, tmp_path):
    shutil.copytree(evaluation, tmp_path / "e")
    content = json.loads((evaluation / "evaluation.json").read_text())
    for model in content["models"]:
        model["map_range"] = None
    (tmp_path / "e" / "evaluation.json").write_text(json.dumps(content))
    page = Page(write_report([tmp_path / "e"], tmp_path / "r.html"))
    pictured = sum(len(model["cases"]) for model in content["models"])
    assert page.count("img") == 2 * pictured


def test_colour_cases_are_shown(evaluation, tmp_path):
    shutil.copytree(evaluation, tmp_path / "e")
    with np.load(evaluation / "cases.npz") as archive:
        arrays = {k: a if k.startswith("maps") else np.stack([a] * 3, -1)
                  for k, a in archive.items()}  # fmt: skip
    np.savez(tmp_path / "e" / "cases.npz", **arrays)
    grey = write_report([evaluation], tmp_path / "grey.html")
    colour = write_report([tmp_path / "e"], tmp_path / "colour.html")
    assert Page(colour).count("img") == Page(grey).count("img")


def test_hostile_text_stays_text(evaluation, run, sweep, tmp_path):
    shutil.copytree(run, tmp_path / "<script>alert(3)<")
    experiment = json.loads((run / "experiment.json").read_text())
    experiment |= {"variant": HOSTILE, HOSTILE: HOSTILE}
    hostile_run = tmp_path / "<script>alert(3)<"
    (hostile_run / "experiment.json").write_text(json.dumps(experiment))
    rows = [{"stage": HOSTILE, "images": i, HOSTILE + "/a": 1.0} for i in (1, 2)]
    rows += [{"stage": "b", "images": 3, HOSTILE + "/a": 2.0}]
    (hostile_run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(evaluation, tmp_path / "e")
    text = (evaluation / "evaluation.json").read_text()
    (tmp_path / "e" / "evaluation.json").write_text(
        text.replace('"pca"', json.dumps(HOSTILE)).replace("digit 9", json.dumps(HOSTILE)[1:-1])
    )
    shutil.copytree(sweep, tmp_path / "s")
    study = json.loads((sweep / "sweep.json").read_text()) | {"study": HOSTILE}
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(study))
    paths = [tmp_path / "e", hostile_run, tmp_path / "s"]
    page = Page(write_report(paths, tmp_path / "r.html", title=HOSTILE))
    assert page.count("script") == 0
    assert page.count("img", src="x") == 0
    assert page.text.count("<script>alert(1)</script>") >= 6
    assert "Training: <script>alert(3)<" in page.text


def test_the_same_sources_give_the_same_bytes(report, evaluation, run, sweep, tmp_path):
    again = write_report([evaluation, run, sweep], tmp_path / "again.html")
    assert again.read_bytes() == report.read_bytes()


def test_a_folder_with_nothing_to_report_is_refused_with_what_is_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"experiment\.json.*evaluation\.json.*sweep\.json"):
        write_report([tmp_path / "absent"], tmp_path / "r.html")
    assert not (tmp_path / "absent").exists()


def test_an_evaluation_of_another_schema_is_refused(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"schema": 2}')
    with pytest.raises(ArtifactError, match="schema 2"):
        write_report([tmp_path], tmp_path / "r.html")


@pytest.mark.parametrize(("name", "text"), [("sweep.json", "{"), ("experiment.json", "[]")])
def test_a_damaged_file_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ArtifactError, match=name):
        write_report([tmp_path], tmp_path / "r.html")


@pytest.mark.parametrize("harm", [b"no archive", None])
def test_damaged_cases_and_pickles_are_refused(evaluation, tmp_path, harm):
    shutil.copytree(evaluation, tmp_path / "e")
    if harm is None:
        np.savez(tmp_path / "e" / "cases.npz", images_0=np.array([{"a": 1}], dtype=object))
    else:
        (tmp_path / "e" / "cases.npz").write_bytes(harm)
    with pytest.raises(ArtifactError, match=r"cases\.npz"):
        write_report([tmp_path / "e"], tmp_path / "r.html")


def test_heads_have_a_table_that_says_what_it_is_not(evaluation, tmp_path):
    folder = shutil.copytree(evaluation, tmp_path / "with-heads")
    content = json.loads((folder / "evaluation.json").read_text())
    add_heads(content["models"][0])
    (folder / "evaluation.json").write_text(json.dumps(content))
    text = Page(write_report([folder], tmp_path / "report.html")).text
    assert text.count("Heads: other scores of the same networks") == 1
    assert "a description, no choice" in text
    assert "ssim,top=0.01" in text
    assert "+0.020 +0.011 to +0.028" in text
    assert "residual is better" in text
