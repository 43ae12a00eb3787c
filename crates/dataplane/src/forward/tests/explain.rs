//! What is said of a packet before it comes is what becomes of it.

use proptest::prelude::*;

use super::frames::Client;
use super::kit::{EVERY_SCHEDULER, Health, Node, Outcome, Site, VIP, timeouts};
use crate::forward::{Because, Explanation, Question};
use crate::key::FlowKey;
use crate::packet::Packet;
use crate::scheduler::SchedulerKind;
use crate::verdict::Verdict;

/// Of the packet that is this frame.
fn explain(node: &Node, frame: &[u8], known: bool) -> Explanation {
    let key = key(frame);
    let flow = known.then(|| {
        let readers = node.workers.iter().map(|worker| worker.flows().reader());
        let flows: Vec<_> = readers
            .flat_map(|reader| {
                let page = reader.page(0, reader.buckets(), &timeouts(), node.now);
                page.collect::<Vec<_>>()
            })
            .collect();
        flows.into_iter().find(|flow| flow.key == key)
    });
    let question = Question {
        key,
        flow: flow.flatten(),
        snapshot: &node.snapshot,
        shared: &node.shared,
        leases: &node.leases,
        timeouts: &timeouts(),
        now: node.now,
    };
    question.explain()
}

fn key(frame: &[u8]) -> FlowKey {
    let Packet::Tcp(key, _) = crate::parse(frame) else { panic!("no segment of TCP") };
    key
}

fn outcome(explanation: &Explanation) -> Outcome {
    match explanation.outcome {
        Ok(backend) => Outcome::To(backend.0),
        Err(Verdict::Answer | Verdict::Forward(_)) => Outcome::Answered,
        Err(Verdict::HandOver) => Outcome::HandedOver,
        Err(Verdict::Wait) => Outcome::Waits,
        Err(Verdict::Drop(reason)) => Outcome::Dropped(reason),
    }
}

/// Something that happens to a node.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client's new connection, to be continued or not.
    Open {
        client: u32,
        port: u16,
        stays: bool,
    },
    /// The next packet of a connection.
    Next {
        client: u32,
        port: u16,
    },
    Health {
        backend: u16,
        health: Health,
    },
    Pass {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let health = prop_oneof![
        3 => Just(Health::Up),
        1 => Just(Health::Suspected),
        1 => Just(Health::Doubted),
        1 => Just(Health::Kept),
        1 => Just(Health::Reset),
        1 => Just(Health::Discarded),
    ];
    let (client, port) = (0..6_u32, 40_000..40_003_u16);
    let step = prop_oneof![
        6 => (client.clone(), port.clone(), any::<bool>())
            .prop_map(|(client, port, stays)| Step::Open { client, port, stays }),
        3 => (client, port).prop_map(|(client, port)| Step::Next { client, port }),
        2 => (0..4_u16, health).prop_map(|(backend, health)| Step::Health { backend, health }),
        1 => (1..80_u64).prop_map(|seconds| Step::Pass { seconds }),
    ];
    proptest::collection::vec(step, 1..60)
}

fn run(mut node: Node, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Open { client, port, stays } => {
                let client = Client::new(client, VIP).from(port);
                // One that has this connection already goes on with it.
                if !stays || explain(&node, &client.syn(), true).because != Some(Because::Flow) {
                    let said = outcome(&explain(&node, &client.syn(), false));
                    let again = outcome(&explain(&node, &client.syn(), false));
                    assert_eq!(said, again, "asking changes nothing");
                    let is_new = explain(&node, &client.syn(), true).because != Some(Because::Flow);
                    let became = node.send(0, client.syn());
                    assert!(!is_new || became == said, "{said:?} was said, {became:?} became");
                }
                if stays {
                    node.send(0, client.ack());
                    node.send(0, client.data());
                }
            }
            Step::Next { client, port } => {
                let client = Client::new(client, VIP).from(port);
                let said = explain(&node, &client.ack(), true);
                let became = node.send(0, client.ack());
                if said.because == Some(Because::Flow) {
                    assert_eq!(outcome(&said), became);
                }
            }
            Step::Health { backend, health } => node.health(backend, health),
            Step::Pass { seconds } => node.pass(seconds),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_becomes_true(
        steps in steps(),
        kind in proptest::sample::select(&EVERY_SCHEDULER[..]),
        persistent in any::<bool>(),
    ) {
        let site = if persistent { Site::web } else { Site::forgetful };
        run(Node::new(site(kind, &[1, 2, 1, 3])), &steps);
    }
}

#[test]
fn reasons_are_named() {
    let mut node = Node::new(Site::web(SchedulerKind::Maglev, &[1; 4]));
    let client = Client::new(1, VIP);
    let because = |node: &Node, client: Client, known| explain(node, &client.syn(), known).because;
    assert_eq!(because(&node, client, false), Some(Because::Hash));
    node.send(0, client.syn());
    assert_eq!(because(&node, client, false), Some(Because::Pending));
    assert_eq!(because(&node, client.from(9), false), Some(Because::SourcePending));
    let home = explain(&node, &client.syn(), false).home.expect("a home").0;
    node.send(0, client.ack());
    node.send(0, client.data());
    assert_eq!(because(&node, client, true), Some(Because::Flow));
    assert_eq!(because(&node, client.from(9), false), Some(Because::Template));
    node.health(home, Health::Discarded);
    assert_eq!(because(&node, client.from(9), false), Some(Because::ReSteered));
    assert_eq!(because(&node, client, true), None, "its backend is down");
    let closed = explain(&node, &client.to(81).syn(), false);
    assert_eq!((closed.service, closed.because), (None, None));
    let rr = Node::new(Site::web(SchedulerKind::Rr, &[1; 4]));
    assert_eq!(because(&rr, client, false), Some(Because::Scheduler));
}
