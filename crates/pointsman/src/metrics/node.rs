//! The node as a whole, and its persistence table.

use api::status::Status;

use super::family::{Page, flag, number};
use super::labels::{OfBuild, OfDrop, OfGeneration, OfReload, Stage, Taken};

/// Adds the node to a page.
pub(super) fn add(page: &Page, status: &Status) -> prometheus::Result<()> {
    page.gauge("build_info", "Version of the program; always 1.")?
        .set(&OfBuild { version: &status.program }, 1.0);
    page.gauge("up_seconds", "Seconds since start.")?.set(&(), status.uptime_seconds);
    page.gauge("ready", "1 when a client would be served now.")?.set(&(), flag(status.ready));
    page.counter(
        "netlink_overruns_total",
        "Times that notifications of the kernel were lost and everything was read anew.",
    )?
    .add(&(), status.netlink_overruns);
    let generation =
        page.gauge("snapshot_generation", "Generation of the packet path's configuration.")?;
    generation.set(&OfGeneration { stage: Stage::Published }, number(status.generation));
    generation.set(&OfGeneration { stage: Stage::Acknowledged }, number(status.acknowledged));
    page.counter("log_lines_lost_total", "Lines of the log that could not be written.")?
        .add(&(), status.log_lines_lost);
    page.counter("panics_total", "Panics that ended only a page or a connection.")?
        .add(&(), status.panics);
    let dropped = page.counter("dropped_total", "Frames dropped by the workers.")?;
    for count in &status.dropped {
        dropped.add(&OfDrop { reason: count.name }, count.value);
    }
    configuration(page, status)?;
    persistence(page, status)
}

fn configuration(page: &Page, status: &Status) -> prometheus::Result<()> {
    let configuration = &status.configuration;
    page.gauge(
        "config_last_reload_successful",
        "1 unless the last configuration that was to be taken over was refused.",
    )?
    .set(&(), flag(!configuration.last_refused));
    page.gauge("config_age_seconds", "Time since the configuration in force was taken over.")?
        .set(&(), configuration.age_seconds);
    let reloads =
        page.counter("config_reloads_total", "Configurations, by what became of them.")?;
    for (result, value) in
        [(Taken::Applied, configuration.reloads), (Taken::Refused, configuration.refused)]
    {
        reloads.add(&OfReload { result }, value);
    }
    page.gauge("config_rollback_pending", "1 while a configuration waits to be confirmed.")?
        .set(&(), flag(configuration.rollback_seconds.is_some()));
    Ok(())
}

fn persistence(page: &Page, status: &Status) -> prometheus::Result<()> {
    let table = &status.persistence;
    let gauges = [
        ("persistence_entries", "Persistence templates.", table.entries),
        ("persistence_entries_max", "Most persistence templates.", table.capacity),
    ];
    for (name, help, value) in gauges {
        page.gauge(name, help)?.set(&(), number(value));
    }
    let counters = [
        ("persistence_created_total", "Templates made.", table.created),
        ("persistence_expired_total", "Templates that timed out.", table.expired),
        ("persistence_replaced_total", "Templates given another backend.", table.replaced),
        (
            "persistence_stateless_fallback_total",
            "Connections without a template because the table was full.",
            table.refused,
        ),
    ];
    for (name, help, value) in counters {
        page.counter(name, help)?.add(&(), value);
    }
    Ok(())
}
