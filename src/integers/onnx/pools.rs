//! Averages over windows, and every so many values.

use super::model::Attribute;
use super::{Dialect, Writer};
use crate::graph::Window;

impl Writer<'_> {
    /// A mean that is a sum, which integers keep exact, and one division.
    pub(super) fn global_average(&mut self, name: &str, x: &str, count: usize) -> String {
        if let Dialect::Qonnx(_) = self.dialect {
            return self.model.node("GlobalAveragePool", &[x], name);
        }
        let m = &mut self.model;
        let axes = m.longs("const/planes", &[2, 3]);
        let sum = m.node("ReduceSum", &[x, &axes], &format!("{name}/sum"));
        let count = m.scalar(count as f32);
        m.node("Div", &[&sum, &count], name)
    }

    pub(super) fn average(
        &mut self,
        name: &str,
        x: &str,
        window: &Window,
        count_padding: bool,
        channels: usize,
        plane: [usize; 2],
    ) -> String {
        let m = &mut self.model;
        if self.dialect == Dialect::Standard && !window.ceil {
            let [kh, kw] = window.kernel;
            let ones = vec![1.0; channels * kh * kw];
            let ones = m.floats(&format!("{name}/ones"), &[channels, 1, kh, kw], &ones);
            let mut attributes = windowed(window);
            attributes.push(("group", Attribute::Int(channels as i64)));
            let sum = m.node_with("Conv", &[x, &ones], &format!("{name}/sum"), attributes);
            let whole = m.scalar((kh * kw) as f32);
            if count_padding || window.padding == [[0; 2]; 2] {
                return m.node("Div", &[&sum, &whole], name);
            }
            let (extent, mut counts) = counts(window, plane);
            let mut of_all = sum;
            if window.symmetric_padding().is_none() {
                // As burn does it: a mean over the whole window, over the share that is input.
                counts
                    .iter_mut()
                    .for_each(|count| *count /= (kh * kw) as f32);
                of_all = m.node("Div", &[&of_all, &whole], &format!("{name}/mean"));
            }
            let counts = m.floats(&format!("{name}/counts"), &extent, &counts);
            return m.node("Div", &[&of_all, &counts], name);
        }
        let mut attributes = windowed(window);
        attributes.retain(|(key, _)| *key != "dilations");
        attributes.push(("ceil_mode", Attribute::Int(window.ceil.into())));
        attributes.push(("count_include_pad", Attribute::Int(count_padding.into())));
        m.node_with("AveragePool", &[x], name, attributes)
    }

    pub(super) fn subsample(&mut self, name: &str, x: &str, stride: usize, extra: usize) -> String {
        let m = &mut self.model;
        let starts = m.longs("const/starts", &[0, 0]);
        let ends = m.longs("const/ends", &[i64::from(i32::MAX); 2]);
        let axes = m.longs("const/planes", &[2, 3]);
        let steps = m.longs(&format!("const/steps{stride}"), &[stride as i64; 2]);
        let last = extra == 0;
        let picked = if last {
            name.to_owned()
        } else {
            format!("{name}/picked")
        };
        let picked = m.node("Slice", &[x, &starts, &ends, &axes, &steps], &picked);
        if last {
            return picked;
        }
        let pads = m.longs(
            &format!("{name}/pads"),
            &[0, 0, 0, 0, 0, extra as i64, 0, 0],
        );
        m.node("Pad", &[&picked, &pads], name)
    }
}

pub(super) fn windowed(window: &Window) -> Vec<(&'static str, Attribute)> {
    let longs = |v: [usize; 2]| Attribute::Ints(v.map(|v| v as i64).to_vec());
    let [[top, bottom], [left, right]] = window.padding.map(|p| p.map(|v| v as i64));
    vec![
        ("kernel_shape", longs(window.kernel)),
        ("strides", longs(window.stride)),
        ("dilations", longs(window.dilation)),
        ("pads", Attribute::Ints(vec![top, left, bottom, right])),
    ]
}

/// How many values of the input each window holds, and the shape to go over channels with.
fn counts(window: &Window, plane: [usize; 2]) -> ([usize; 4], Vec<f32>) {
    let outputs = window.output(plane).unwrap_or([0; 2]);
    let along = |axis: usize| -> Vec<usize> {
        let inside = |output: &usize| {
            let taps = (0..window.kernel[axis]).map(|k| {
                (output * window.stride[axis] + k * window.dilation[axis])
                    .wrapping_sub(window.padding[axis][0])
            });
            taps.filter(|at| *at < plane[axis]).count()
        };
        (0..outputs[axis]).map(|o| inside(&o)).collect()
    };
    let columns = along(1);
    let all = along(0).into_iter().flat_map(|rows| {
        columns
            .iter()
            .map(move |columns| (rows * columns).max(1) as f32)
    });
    ([1, 1, outputs[0], outputs[1]], all.collect())
}
