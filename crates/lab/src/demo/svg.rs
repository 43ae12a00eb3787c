//! Line plots as inline SVG. Colours come from the page's style sheet, so that one drawing fits
//! light and dark.

use std::fmt::Write as _;

/// One line of a plot: evenly spaced values.
pub(super) struct Line {
    /// For the legend.
    pub(super) name: String,
    /// Its class in the style sheet.
    pub(super) class: String,
    /// Values, none negative.
    pub(super) values: Vec<f64>,
}

/// Something that happened at a time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    /// Seconds from the beginning.
    pub(super) at: f64,
    /// A few words.
    pub(super) label: String,
}

/// Lines over time.
pub(super) struct Plot<'a> {
    /// For those who cannot see it.
    pub(super) title: &'a str,
    /// What the values count.
    pub(super) unit: &'a str,
    /// Distance of two values in seconds.
    pub(super) step: f64,
    pub(super) lines: &'a [Line],
    /// In order of time.
    pub(super) marks: &'a [Mark],
}

impl Plot<'_> {
    /// Draws it.
    pub(super) fn draw(&self) -> String {
        let (area, height) = self.area();
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
            escape(self.title)
        );
        self.axes(&mut out, &area);
        self.marks(&mut out, &area);
        for line in self.lines {
            let points: Vec<String> = line
                .values
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    // A value stands for its slice of time: it is drawn in the middle of it.
                    let time = (index as f64 + 0.5) * self.step;
                    format!("{:.1},{:.1}", area.x(time), area.y(*value))
                })
                .collect();
            let (class, points) = (&line.class, points.join(" "));
            // Writing to a String cannot fail; likewise below.
            let _ = writeln!(out, "<polyline class=\"{class}\" points=\"{points}\"/>");
        }
        self.legend(&mut out, area.bottom + 36.0);
        out + "</svg>\n"
    }

    /// Where values and times go, and the height of the whole.
    fn area(&self) -> (Area, f64) {
        let count = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        let highest = self.lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max);
        let (highest, tick) = scale(highest);
        let seconds = (self.step * count as f64).max(self.step);
        // So wide a margin that the last labels end inside the drawing.
        let end = |mark: &Mark| {
            let part = (mark.at / seconds).clamp(0.01, 1.0);
            LEFT + (WIDTH - MARGIN - LEFT - label_width(mark)) / part
        };
        let right = self.marks.iter().map(end).fold(WIDTH - MARGIN, f64::min);
        let mut area = Area { right, top: 0.0, bottom: 0.0, seconds, highest, tick };
        let rows = self.rows(&area).into_iter().max().map_or(0, |row| row + 1);
        area.top = TOP + ROW * rows as f64;
        area.bottom = area.top + INNER;
        (area, area.bottom + BOTTOM)
    }

    /// The grid, the values beside it and the times below.
    fn axes(&self, out: &mut String, area: &Area) {
        let mut value = 0.0;
        while value <= area.highest {
            let at = area.y(value);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{value:.0}</text>",
                area.right,
                LEFT - 6.0,
                at + 4.0
            );
            value += area.tick;
        }
        let step = scale(area.seconds).1.max(1.0);
        let mut time = 0.0;
        while time <= area.seconds {
            let (x, y) = (area.x(time), area.bottom + 16.0);
            let _ = writeln!(
                out,
                "<text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{time} s</text>"
            );
            time += step;
        }
        let (y, unit) = (area.top - 10.0, escape(self.unit));
        let _ = writeln!(out, "<text class=\"tick\" x=\"4\" y=\"{y:.1}\">{unit}</text>");
    }

    /// A vertical line for each mark, with its label to the right of its upper end.
    fn marks(&self, out: &mut String, area: &Area) {
        for (mark, row) in self.marks.iter().zip(self.rows(area)) {
            let (x, top) = (area.x(mark.at), area.top - ROW * (row + 1) as f64);
            let _ = writeln!(
                out,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{:.1}\"/>\
                 <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                area.bottom,
                x + 4.0,
                top + 10.0,
                escape(&mark.label)
            );
        }
    }

    /// The row of each mark's label, counted upwards: above those of all later marks that stand
    /// within its width. So no label covers another one, and no line crosses a label.
    fn rows(&self, area: &Area) -> Vec<usize> {
        let mut rows = vec![0; self.marks.len()];
        for (index, mark) in self.marks.iter().enumerate().rev() {
            let end = area.x(mark.at) + label_width(mark);
            let later = self.marks.iter().zip(&rows).skip(index + 1);
            let covered = later.filter(|(later, _)| area.x(later.at) < end);
            rows[index] = covered.map(|(_, row)| row + 1).max().unwrap_or(0);
        }
        rows
    }

    fn legend(&self, out: &mut String, y: f64) {
        let mut x = LEFT;
        for Line { name, class, .. } in self.lines {
            let _ = writeln!(
                out,
                "<line class=\"{class}\" x1=\"{x:.0}\" x2=\"{:.0}\" y1=\"{y:.0}\" y2=\"{y:.0}\"/>\
                 <text class=\"legend\" x=\"{:.0}\" y=\"{:.0}\">{}</text>",
                x + 18.0,
                x + 24.0,
                y + 4.0,
                escape(name)
            );
            x += 50.0 + LETTER * name.chars().count() as f64;
        }
    }
}

/// The place inside the axes.
#[derive(Clone, Copy)]
struct Area {
    right: f64,
    top: f64,
    bottom: f64,
    /// At the right end.
    seconds: f64,
    /// At the upper end.
    highest: f64,
    /// Distance of two values of the grid.
    tick: f64,
}

impl Area {
    fn x(&self, time: f64) -> f64 {
        LEFT + (self.right - LEFT) * time / self.seconds
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * value / self.highest
    }
}

/// An estimate on the safe side, with a gap to the next label.
fn label_width(mark: &Mark) -> f64 {
    10.0 + LETTER * mark.label.chars().count() as f64
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
/// Height of what is inside the axes.
const INNER: f64 = 172.0;
const LEFT: f64 = 58.0;
/// To the right, at least.
const MARGIN: f64 = 12.0;
/// Above the axes, without labels of marks.
const TOP: f64 = 22.0;
/// Below the axes: times and legend.
const BOTTOM: f64 = 46.0;
/// Height of a label.
const ROW: f64 = 15.0;
/// Width of a letter of a label.
const LETTER: f64 = 6.2;

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

    fn line(name: &str, values: &[f64]) -> Line {
        Line { name: name.into(), class: "line-0".into(), values: values.to_vec() }
    }

    fn mark(at: f64, label: &str) -> Mark {
        Mark { at, label: label.into() }
    }

    fn plot<'a>(lines: &'a [Line], marks: &'a [Mark]) -> Plot<'a> {
        Plot { title: "a<b", unit: "\"", step: 1.0, lines, marks }
    }

    #[test]
    fn values_keep_their_order_and_stay_inside() {
        let lines = [line("rs1", &[0.0, 900.0, 450.0])];
        let (plot, drawn) = (plot(&lines, &[]), points(&plot(&lines, &[]).draw()));
        let (area, _) = plot.area();
        assert_eq!(drawn.len(), 3);
        assert!(drawn.is_sorted_by(|a, b| a.0 < b.0), "{drawn:?}");
        let (zero, high, middle) = (drawn[0].1, drawn[1].1, drawn[2].1);
        assert_eq!(zero, area.bottom);
        assert!(high < middle && middle < zero && high >= area.top, "{drawn:?}");
        assert!((zero - middle - (middle - high)).abs() < 0.11, "{drawn:?}");
        assert!(drawn.iter().all(|(x, _)| (LEFT..=area.right).contains(x)), "{drawn:?}");
    }

    #[test]
    fn names_are_escaped_and_tags_are_closed() {
        let lines = [line("<script>", &[1.0]), line("x&y", &[1.0])];
        let svg = plot(&lines, &[mark(0.5, "<b>")]).draw();
        assert!(!svg.contains("<script>") && !svg.contains("<b>"));
        assert!(svg.contains("&lt;script&gt;") && svg.contains("x&amp;y"));
        assert!(svg.contains("aria-label=\"a&lt;b\""));
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("class=\"mark\"").count(), 1);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_a_drawing() {
        let lines = [line("a", &[])];
        let svg = plot(&lines, &[mark(0.0, "at once"), mark(9.0, "too late")]).draw();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(plot(&[], &[]).draw().ends_with("</svg>\n"));
    }

    /// Labels as boxes, lines as they are drawn.
    #[test]
    fn no_label_is_covered_crossed_or_cut() {
        let lines = [line("a", &[1.0; 20])];
        let sets: [&[f64]; 5] = [
            &[3.0, 3.3, 4.0],
            &[0.0, 0.1, 0.2, 0.3, 19.9, 20.0],
            &[5.0, 6.2, 7.4, 8.6],
            &[20.0],
            &[],
        ];
        for set in sets {
            let marks: Vec<Mark> = set.iter().map(|at| mark(*at, "lb1 starts again")).collect();
            let plot = plot(&lines, &marks);
            let ((area, _), rows) = (plot.area(), plot.rows(&plot.area().0));
            let boxes: Vec<(f64, f64, usize)> = marks
                .iter()
                .zip(&rows)
                .map(|(mark, row)| (area.x(mark.at), area.x(mark.at) + label_width(mark), *row))
                .collect();
            for (index, (begin, end, row)) in boxes.iter().enumerate() {
                assert!(*end <= WIDTH - MARGIN + 0.01, "{set:?}: {boxes:?}");
                let inside = |x: &f64| (begin..end).contains(&x);
                let others = boxes.iter().enumerate().filter(|(other, _)| *other != index);
                for (_, (x, _, other)) in others.filter(|(_, (x, ..))| inside(x)) {
                    // Its line runs from its own row downwards.
                    assert!(other < row, "{set:?}: {x} {boxes:?}");
                }
            }
        }
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
