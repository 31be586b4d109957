//! The window alone, and calls that pass through the gate.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;

use super::*;

#[test]
fn a_window_grows_by_one_a_round_and_is_halved_once_a_round() {
    let mut window = Window::new(64);
    assert_eq!(window.calls(), 16);
    let added: usize = (0..17).map(|_| window.grow()).sum();
    assert_eq!((added, window.calls()), (1, 17));
    assert_eq!([window.shrink(0), window.shrink(0), window.shrink(0)], [9, 0, 0], "of one round, once");
    assert_eq!(window.shrink(1), 4);
    for round in 2..10 {
        window.shrink(round);
    }
    assert_eq!(window.calls(), 1, "one call is always let through");
    let added: usize = (0..10_000).map(|_| window.grow()).sum();
    assert_eq!((added, window.calls()), (63, 64), "and never more than the most");
    assert_eq!(Window::new(0).calls(), 1);
}

/// Makes calls through the gate, of which those that see more than `capacity` under way are throttled and made again.
async fn throttled_calls(gate: &Gate, capacity: usize, count: usize) -> (usize, usize) {
    let (under_way, most, throttled) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let call = async || loop {
        let pass = gate.enter().await.expect("it is open");
        let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        under_way.fetch_sub(1, Ordering::SeqCst);
        if now <= capacity {
            return pass.answered();
        }
        throttled.fetch_add(1, Ordering::SeqCst);
        pass.throttled();
    };
    join_all((0..count).map(|_| call())).await;
    (most.into_inner(), throttled.into_inner())
}

#[tokio::test]
async fn calls_come_to_what_the_service_takes() {
    let gate = Gate::new(64);
    let (most, throttled) = throttled_calls(&gate, 1_000, 4_000).await;
    assert_eq!((most, throttled), (64, 0), "all that is allowed, where nothing is throttled");
    let (_, throttled) = throttled_calls(&gate, 5, 2_000).await;
    assert!(throttled < 1_000, "{throttled} of 2,000 calls were throttled");
    let left = gate.with(|w| (w.calls(), w.owed));
    assert!(left.0 <= 10, "{left:?}");
    assert_eq!(gate.permits.available_permits(), left.0 + left.1, "no permit is lost, and none too many");
}

#[tokio::test]
async fn a_call_that_is_given_up_makes_room() {
    let gate = Gate::new(4);
    for _ in 0..10 {
        drop(gate.enter().await.expect("it is open"));
    }
    assert_eq!(gate.permits.available_permits(), 1);
}
