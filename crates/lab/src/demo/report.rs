//! The demo's report: one HTML file without anything from elsewhere.

use std::{fmt::Write as _, time::Duration};

use lab::LoadReport;

use super::{
    Results,
    loads::Run,
    packets,
    story::{COLUMNS, Story},
    svg::{Line, Mark, Plot, escape},
};

/// The whole page.
pub(super) fn html(results: &Results) -> String {
    let mut out = format!("{HEAD}<h1>Pointsman demo</h1>\n");
    out += "<p>Direct routing: the balancer rewrites nothing but the MAC addresses of a client's \
            frame, and the backend answers the client itself.</p>\n";
    out += &statements(results);
    out += &topology(results);
    out += &packets_table(&results.packets);
    out += &table(&results.runs);
    for run in &results.runs {
        let title = format!("{}, {}", run.file, run.route.label());
        let _ = write!(out, "<h3>{}</h3>\n{}", escape(&title), plot(&title, &run.report, &[], RUN));
    }
    for story in &results.stories {
        out += &story_section(story);
    }
    out + "</main></body></html>\n"
}

fn statements(results: &Results) -> String {
    let item = |verdict: &super::Statement| {
        let (class, word) = if verdict.met { ("yes", "yes") } else { ("no", "no") };
        format!("<li><b class=\"{class}\">{word}</b> {}</li>\n", escape(&verdict.text))
    };
    let items: String = results.statements.iter().map(item).collect();
    format!("<h2>Statement</h2>\n<ul class=\"statements\">\n{items}</ul>\n")
}

/// The nodes around the switch: requests in one colour, answers in another.
fn topology(results: &Results) -> String {
    let mut out = String::from(
        "<h2>The network</h2>\n<svg viewBox=\"0 0 760 250\" role=\"img\" \
         aria-label=\"client, balancer and backends on one switch\">\n<defs>\
         <marker id=\"head\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto-start-reverse\"><path class=\"arrowhead\" \
         d=\"M0 0 10 5 0 10z\"/></marker></defs>\n",
    );
    let mut boxed = |x: u32, y: u32, (name, address, mac): &(String, String, String)| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<rect class=\"node\" x=\"{x}\" y=\"{y}\" width=\"160\" height=\"56\" rx=\"6\"/>\
             <text class=\"name\" x=\"{}\" y=\"{}\">{}</text>\
             <text class=\"tick\" x=\"{}\" y=\"{}\">{}</text>\
             <text class=\"tick\" x=\"{}\" y=\"{}\">{}</text>",
            x + 10,
            y + 18,
            escape(name),
            x + 10,
            y + 34,
            escape(address),
            x + 10,
            y + 48,
            escape(mac)
        );
    };
    let mut row = 0;
    for node in &results.nodes {
        match node.0.as_str() {
            name if name.starts_with("client") => boxed(20, 90, node),
            name if name.starts_with("lb") => boxed(300, 20, node),
            _ => {
                boxed(580, 20 + 76 * row, node);
                row += 1;
            }
        }
    }
    let vip = results.vip;
    out + &format!(
        "<path class=\"request\" marker-end=\"url(#head)\" d=\"M180 105 L298 55\"/>\n\
         <path class=\"request\" marker-end=\"url(#head)\" d=\"M460 48 L578 48\"/>\n\
         <path class=\"request\" marker-end=\"url(#head)\" d=\"M460 55 L578 120\"/>\n\
         <path class=\"request\" marker-end=\"url(#head)\" d=\"M460 62 L578 194\"/>\n\
         <path class=\"answer\" marker-end=\"url(#head)\" d=\"M578 215 Q340 240 182 138\"/>\n\
         <text class=\"legend\" x=\"196\" y=\"54\">to {vip}</text>\n\
         <text class=\"legend\" x=\"300\" y=\"242\">answer from {vip}, past the balancer</text>\n\
         </svg>\n"
    )
}

fn packets_table(evidence: &packets::Evidence) -> String {
    let mut out = format!(
        "<h2>What happens to a packet</h2>\n<p>The same frames on both sides of the balancer; \
         the last column is equal on both.</p>\n<div class=\"wide\"><table><tr><th>MACs before</th>\
         <th>MACs at {}</th><th>addresses, ports</th></tr>\n",
        escape(evidence.backend())
    );
    for (before, behind) in evidence.before.iter().zip(&evidence.behind) {
        let macs = |from, to| {
            let names = [from, to].map(|mac| escape(&evidence.mac_name(mac)));
            format!("{}<br>&gt; {}", names[0], names[1])
        };
        let _ = writeln!(
            out,
            "<tr><td class=\"mono\">{}</td><td class=\"mono\">{}</td><td class=\"mono\">{}</td></tr>",
            macs(before.source_mac, before.destination_mac),
            macs(behind.source_mac, behind.destination_mac),
            escape(&packets::inner(behind))
        );
    }
    out + "</table></div>\n"
}

fn table(runs: &[Run]) -> String {
    let mut out = String::from(
        "<h2>Load</h2>\n<p>Ten threads, a new connection for every request, persistence 50 s. \
         The reference load is 1,699 requests/s.</p>\n<div class=\"wide\"><table>\
         <tr><th>file</th><th>way</th><th>requests/s</th><th>done</th><th>failed</th>\
         <th>p50 ms</th><th>p99 ms</th><th>longest gap ms</th><th>share per backend</th></tr>\n",
    );
    for run in runs {
        let report = &run.report;
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let shares = report.per_backend().into_iter().map(|(name, count)| {
            format!("{} {:.1} %", escape(&name), 100.0 * count as f64 / report.done() as f64)
        });
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{:.0}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{:.1}</td>\
             <td class=\"n\">{:.0}</td><td>{}</td></tr>",
            run.file,
            escape(&run.route.label()),
            report.rate(),
            report.done(),
            report.failed(),
            ms(report.latency().p50),
            ms(report.latency().p99),
            ms(report.longest_gap().length),
            shares.collect::<Vec<_>>().join("<br>")
        );
    }
    out + "</table></div>\n"
}

fn story_section(story: &Story) -> String {
    let setting = &story.setting;
    let mut out =
        format!("<h2>{}</h2>\n<p>{}</p>\n", escape(setting.title), escape(&setting.about));
    out += &plot(setting.title, &story.report, &story.marks(), STORY);
    let [first, rest @ ..] = COLUMNS;
    let heads: String = rest.iter().map(|head| format!("<th class=\"n\">{head}</th>")).collect();
    let _ = writeln!(
        out,
        "<div class=\"wide\"><table><tr><th>{first}</th>{heads}<th>what came of it</th></tr>"
    );
    for phase in &story.phases {
        let [first, rest @ ..] = phase.cells(&story.report);
        let cells: String =
            rest.iter().map(|cell| format!("<td class=\"n\">{cell}</td>")).collect();
        let notes: Vec<String> =
            phase.notes(&story.report).iter().map(|note| escape(note)).collect();
        let _ = writeln!(
            out,
            "<tr><td class=\"what\">{}</td>{cells}<td>{}</td></tr>",
            escape(&first),
            notes.join("<br>")
        );
    }
    out += "</table></div>\n";
    if let Some(beside) = setting.beside {
        let _ = writeln!(out, "<p>{}</p>", escape(beside));
    }
    out
}

/// Requests a second, all and per backend, and failures, in slices of `step`.
fn plot(title: &str, report: &LoadReport, marks: &[Mark], step: Duration) -> String {
    let mut buckets = report.buckets(step);
    // The last slice is rarely a whole one; drawn as such it would look like a drop.
    if buckets.len() > 1 {
        buckets.pop();
    }
    let per_second = |count: u64| count as f64 / step.as_secs_f64();
    let names = report.timeline().backends();
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|number| &names[*number]);
    let mut lines = Vec::new();
    if names.len() > 1 {
        let values = buckets.iter().map(|bucket| per_second(bucket.ok)).collect();
        lines.push(Line { name: "all".into(), class: "all".into(), values });
    }
    lines.extend(order.into_iter().enumerate().map(|(place, number)| Line {
        name: names[number].clone(),
        class: format!("line-{}", place % 4),
        values: buckets.iter().map(|bucket| per_second(bucket.per_backend[number])).collect(),
    }));
    if report.failed() > 0 {
        let values = buckets.iter().map(|bucket| per_second(bucket.failed)).collect();
        lines.push(Line { name: "failed".into(), class: "failed".into(), values });
    }
    Plot { title, unit: "requests/s", step: step.as_secs_f64(), lines: &lines, marks }.draw()
}

/// Length of the slices of an even load, and of one to which something happens.
const RUN: Duration = Duration::from_millis(500);
const STORY: Duration = Duration::from_millis(200);

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Pointsman demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --fg: #1c2024; --dim: #667; --bg: #fff; --box: #f3f5f8;
  --rule: #d5dae1; --l0: #1f6fd1; --l1: #c2571a; --l2: #1c8a4d; --l3: #8b3fb5; --bad: #c22; }
@media (prefers-color-scheme: dark) { :root { --fg: #e6e9ee; --dim: #9aa4b2; --bg: #14171b;
  --box: #1f242b; --rule: #363d47; --l0: #6cb0ff; --l1: #ffa35c; --l2: #5fd195; --l3: #d19af0;
  --bad: #ff7b72; } }
body { background: var(--bg); color: var(--fg); font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 820px; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h2 { margin-top: 2rem; } h3 { margin-bottom: .3rem; font-size: 1rem; }
svg { width: 100%; height: auto; background: var(--box); border-radius: 6px; }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; }
th, td { border-bottom: 1px solid var(--rule); padding: .35rem .6rem; text-align: left;
  vertical-align: top; } .n { text-align: right; font-variant-numeric: tabular-nums; }
.what { white-space: nowrap; } .mono { font-family: ui-monospace, monospace; font-size: 12px; white-space: nowrap; }
.statements { list-style: none; padding: 0; } .yes { color: var(--l2); } .no { color: var(--bad); }
.statements b { display: inline-block; min-width: 2.2rem; text-transform: uppercase; }
.grid { stroke: var(--rule); } .tick { fill: var(--dim); font-size: 11px; }
.legend { fill: var(--fg); font-size: 12px; } .name { fill: var(--fg); font-weight: 600; }
.node { fill: var(--bg); stroke: var(--rule); } polyline, line[class^=line],
.all, .failed { fill: none; stroke-width: 2; } .all { stroke: var(--fg); }
.failed { stroke: var(--bad); }
.mark { stroke: var(--dim); stroke-dasharray: 3 3; } .label { fill: var(--fg); font-size: 11px; }
.line-0 { stroke: var(--l0); } .line-1 { stroke: var(--l1); }
.line-2 { stroke: var(--l2); } .line-3 { stroke: var(--l3); }
.request, .answer { fill: none; stroke: var(--l0); stroke-width: 2; }
.answer { stroke: var(--l2); stroke-dasharray: 6 4; } .arrowhead { fill: var(--dim); }
</style></head><body><main>
"#;

#[cfg(test)]
mod tests {
    use super::{super::tests::results, *};

    #[test]
    fn the_page_shows_every_run_and_stands_alone() {
        let page = html(&results());
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert_eq!(page.matches("<svg").count(), 1 + 2 + 1);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("<td class=\"n\">1</td>"), "the failure is in the table");
        assert!(page.contains(">failed</text>"), "and in the plot");
        assert!(page.contains("02:00:0a:4d:02:01 (lb1)"));
        assert!(page.contains("<b class=\"no\">no</b> a &lt;claim&gt;"));
        let notes = "<td>lb2 Active: Nothing &lt;was&gt; heard.<br>failed: 1 reset</td>";
        assert!(page.contains(notes));
        assert!(page.contains("<p>Others are slower.</p>"));
        assert_eq!(page.matches("class=\"mark\"").count(), 2, "only the story has marks");
        for outside in ["http:", "https:", "<script", "<link", "url(h"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
