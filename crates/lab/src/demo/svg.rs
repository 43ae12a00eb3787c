//! Line plots as inline SVG. Colours come from the page's style sheet, so that one drawing fits
//! light and dark: line `n` has the class `line-n`.

use std::fmt::Write as _;

/// One line of a plot: evenly spaced values.
pub(super) struct Line {
    /// For the legend.
    pub(super) name: String,
    /// Values, none negative.
    pub(super) values: Vec<f64>,
}

/// Draws lines over time. `step` is the distance of two values in seconds.
pub(super) fn plot(title: &str, unit: &str, step: f64, lines: &[Line]) -> String {
    let longest = lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
    let highest = lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
    let (top, tick) = scale(highest);
    let seconds = step * longest as f64;
    let x = |time: f64| LEFT + (WIDTH - LEFT - RIGHT) * time / seconds.max(step);
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
    // Writing to a String cannot fail.
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        escape(title)
    );
    let mut value = 0.0;
    while value <= top {
        let at = y(value);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{value:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
        value += tick;
    }
    let (_, time_tick) = scale(seconds);
    let mut time = 0.0;
    while time <= seconds {
        let _ = writeln!(
            out,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{time} s</text>",
            x(time),
            HEIGHT - BOTTOM + 16.0
        );
        time += time_tick.max(1.0);
    }
    let _ = writeln!(out, "<text class=\"tick\" x=\"4\" y=\"12\">{}</text>", escape(unit));
    for (number, line) in lines.iter().enumerate() {
        let points: Vec<String> = line
            .values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                // A value stands for its slice of time: it is drawn in the middle of it.
                format!("{:.1},{:.1}", x((index as f64 + 0.5) * step), y(*value))
            })
            .collect();
        let _ =
            writeln!(out, "<polyline class=\"line-{number}\" points=\"{}\"/>", points.join(" "));
        let legend = LEFT + 130.0 * number as f64;
        let _ = writeln!(
            out,
            "<line class=\"line-{number}\" x1=\"{legend:.0}\" x2=\"{:.0}\" y1=\"{LEGEND}\" \
             y2=\"{LEGEND}\"/><text class=\"legend\" x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            legend + 18.0,
            legend + 24.0,
            LEGEND + 4.0,
            escape(&line.name)
        );
    }
    out + "</svg>\n"
}

/// The end of an axis and the distance of its marks, so that there are three to eight of them.
fn scale(highest: f64) -> (f64, f64) {
    let highest = highest.max(1.0);
    let power = 10_f64.powf(highest.log10().floor());
    let steps = [0.2, 0.5, 1.0, 2.0];
    let tick = steps.iter().map(|step| step * power).find(|tick| highest / tick <= 7.0);
    let tick = tick.unwrap_or(power).max(0.2);
    ((highest / tick).ceil() * tick, tick)
}

/// Makes text safe inside HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 46.0;
/// Height of the legend's line.
const LEGEND: f64 = HEIGHT - 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every coordinate pair of the first line.
    fn points(svg: &str) -> Vec<(f64, f64)> {
        let text = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let number = |text: &str| text.parse::<f64>().unwrap();
        let pairs = text.split(' ').map(|pair| pair.split_once(',').unwrap());
        pairs.map(|(x, y)| (number(x), number(y))).collect()
    }

    #[test]
    fn values_keep_their_order_and_stay_inside() {
        let line = Line { name: "rs1".into(), values: vec![0.0, 900.0, 450.0] };
        let svg = plot("t", "u", 1.0, &[line]);
        let drawn = points(&svg);
        assert_eq!(drawn.len(), 3);
        assert!(drawn.is_sorted_by(|a, b| a.0 < b.0), "{drawn:?}");
        let (zero, high, middle) = (drawn[0].1, drawn[1].1, drawn[2].1);
        assert_eq!(zero, HEIGHT - BOTTOM);
        assert!(high < middle && middle < zero && high >= TOP, "{drawn:?}");
        assert!((zero - middle - (middle - high)).abs() < 0.11, "{drawn:?}");
        assert!(drawn.iter().all(|(x, _)| (LEFT..=WIDTH - RIGHT).contains(x)), "{drawn:?}");
    }

    #[test]
    fn names_are_escaped_and_tags_are_closed() {
        let line = |name: &str| Line { name: name.into(), values: vec![1.0] };
        let svg = plot("a<b", "\"", 1.0, &[line("<script>"), line("x&y")]);
        assert!(
            !svg.contains("<script>") && svg.contains("&lt;script&gt;") && svg.contains("x&amp;y")
        );
        assert!(svg.contains("aria-label=\"a&lt;b\""));
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_a_drawing() {
        let svg = plot("t", "u", 1.0, &[Line { name: "a".into(), values: Vec::new() }]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(plot("t", "u", 1.0, &[]).ends_with("</svg>\n"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for highest in [0.0, 1.0, 2.0, 7.3, 9.0, 10.0, 11.0, 1699.0, 4200.0, 99_999.0] {
            let (top, tick) = scale(highest);
            let marks = top / tick;
            assert!(top >= highest && top <= 1.5 * highest.max(1.0), "{highest}: {top}");
            assert!((3.0..=8.0).contains(&marks.round()), "{highest}: {marks}");
        }
        assert_eq!(scale(1699.0), (2000.0, 500.0));
    }
}
