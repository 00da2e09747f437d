//! What a frame costs, for `bitscope bench --frames`.

use std::path::PathBuf;
use std::time::Instant;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Map, Value, json};

use super::app::{App, Page};
use super::view;
use crate::experiment::load_embedded;
use crate::graph::LayerKind;
use crate::quantizer::Parametrization;
use crate::quantizer::memory::{Role, Usage};
use crate::run::{Budget, Event, LayerInfo, LayerRecord, RunFolder, StepRecord};

/// Quantizers of the synthetic runs: of ResNet-20, and of MobileNetV2 or ResNet-50.
const LAYERS: [usize; 2] = [40, 139];
/// Steps of the synthetic run: points of every series.
const STEPS: u64 = 1_000_000;
/// Frames that are timed per page.
const FRAMES: usize = 200;

/// Milliseconds per frame of every page over a long run, and what its series take in memory.
pub(crate) fn bench_frames() -> Value {
    let runs = LAYERS.map(|layers| (format!("{layers} quantizers"), frames(layers)));
    Value::Object(runs.into_iter().collect())
}

fn frames(layers: usize) -> Value {
    let mut app = synthetic(layers, STEPS);
    let mut terminal = Terminal::new(TestBackend::new(200, 60)).expect("a buffer cannot fail");
    let mut pages = Map::new();
    for page in Page::ALL {
        app.page = page;
        let mut times: Vec<f64> = (0..FRAMES as u64)
            .map(|frame| {
                // Every frame has something new to show, as in a running run.
                app.shown.history.push(&step(STEPS + 1 + frame, layers));
                let started = Instant::now();
                app.prepare(200);
                terminal
                    .draw(|frame| view::draw(&app, frame))
                    .expect("a buffer cannot fail");
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        pages.insert(
            page.title().into(),
            json!({ "median_ms": times[FRAMES / 2], "p99_ms": times[FRAMES * 99 / 100] }),
        );
    }
    let histories = &app.shown.history.layers;
    let series: usize = histories.iter().map(|l| l.series().len()).sum();
    let bytes: usize = histories
        .iter()
        .flat_map(|l| l.series())
        .map(crate::run::Series::bytes)
        .sum();
    json!({
        "cells": "200x60", "layers": layers, "points_per_series": STEPS, "pages": pages,
        "series": series, "series_mb": bytes as f64 / 1e6,
    })
}

/// Seconds until a run of a million steps of the demo's network is open: read in full, and with the
/// summary that the reader left.
pub(crate) fn bench_open() -> std::io::Result<Value> {
    const QUANTIZERS: usize = 9;
    let folder = std::env::temp_dir().join(format!("bitscope-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let log = folder.join("events.log");
    let failed = |e: crate::run::LogError| std::io::Error::other(e.to_string());
    let measured = (|| {
        let writer = crate::run::LogWriter::open(&log).map_err(failed)?;
        writer.push(std::sync::Arc::new(started(QUANTIZERS, STEPS)));
        for number in 1..=STEPS {
            writer.push(std::sync::Arc::new(step(number, QUANTIZERS)));
        }
        drop(writer);
        let summary = log.with_extension("summary");
        let summary_mb = summary.metadata()?.len() as f64 / 1e6;
        let mut times = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            let (history, covered) = crate::run::History::from_summary(&log);
            assert!(
                covered.is_some() && history.step() > 0,
                "a long log has a summary"
            );
            times.push(started.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        std::fs::remove_file(&summary)?;
        let started = Instant::now();
        let history = crate::run::History::from_log(&log, None).map_err(failed)?;
        let in_full = started.elapsed().as_secs_f64();
        Ok(json!({
            "steps": history.step(), "quantizers": QUANTIZERS,
            "log_mb": log.metadata()?.len() as f64 / 1e6, "summary_mb": summary_mb,
            "open_s": times[2], "read_in_full_s": in_full,
        }))
    })();
    std::fs::remove_dir_all(&folder)?;
    measured
}

/// An app over a synthetic run of so many layers and steps.
pub(super) fn synthetic(layers: usize, steps: u64) -> App {
    let loaded = load_embedded(crate::face::DEMO.0, crate::face::DEMO.1, &Vec::new())
        .expect("the embedded experiment is valid");
    let folder = RunFolder::unrecorded();
    let mut app = App::new(&loaded, None, folder, PathBuf::from("no-runs"), Vec::new());
    app.shown.history.push(&started(layers, steps));
    for number in 1..=steps {
        app.shown.history.push(&step(number, layers));
    }
    app
}

pub(super) fn started(layers: usize, steps: u64) -> Event {
    Event::Started {
        name: "bench".into(),
        device: "none".into(),
        experiment: String::new(),
        layers: (0..layers).map(layer).collect(),
        budgets: vec![Budget {
            resource: crate::quantizer::memory::Resource::Weights,
            limit: 70.0,
        }],
        steps_per_epoch: 390,
        total_steps: 2 * steps,
        step: 0,
        parent: None,
    }
}

fn layer(index: usize) -> LayerInfo {
    LayerInfo {
        name: format!("s{}.b{}.conv{}", index / 12, index / 4 % 3, index % 2),
        role: if index.is_multiple_of(2) {
            Role::Weight
        } else {
            Role::Activation
        },
        kind: if index.is_multiple_of(2) {
            LayerKind::Convolution
        } else {
            LayerKind::Nonlinearity
        },
        elements: 2304,
        parametrization: Parametrization::U3,
        clamps: [[2f64.powi(-8), 1.0], [2f64.powi(-8), 127.0]],
        quantizer: None,
    }
}

/// A step with numbers that wander.
fn step(number: u64, layers: usize) -> Event {
    let t = number as f64;
    let wave = |rate: f64| (t * rate).sin();
    let layers = (0..layers).map(|i| {
        let phase = i as f64;
        let d = (0.1 * (1.0 + 0.5 * (t * 1e-5 + phase).sin() + 0.05 * wave(0.3 + phase))) as f32;
        LayerRecord {
            d,
            q_max: 8.0 * d,
            bitwidth: (4.0 + 2.0 * (t * 1e-5 + phase).sin()).round() as f32,
            gradients: [1e-3 * d, -2e-3 * d],
            clipped: 0.01,
            zeros: 0.2,
            grad_norm: (0.1 + 0.05 * wave(0.7 + phase)) as f32,
            weight_norm: 3.0,
        }
    });
    Event::Step(Box::new(StepRecord {
        step: number,
        epoch: t / 390.0,
        seconds: t * 0.2,
        loss: 1.0 + 0.3 * wave(0.9) + 1.0 / (1.0 + t * 1e-4),
        cross_entropy: 1.0 + 0.3 * wave(0.9),
        weight_penalty: 0.1,
        activation_penalty: 0.0,
        pulls: [0.5, 0.1],
        train_error: 0.3 + 0.1 * wave(1.3),
        lr: 0.1,
        usage: Usage {
            weights: 80.0 + 10.0 * wave(1e-5),
            activation_sum: 90.0,
            activation_max: 8.0,
            gbops: 1.0,
        },
        budget_met: false,
        samples_per_s: 600.0,
        times: Default::default(),
        layers: Some(layers.collect()),
    }))
}
