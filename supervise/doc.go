// Package supervise runs a worker under a heartbeat and replaces it when it is
// silent, when it fails, and when it panics.
//
// A worker is a function that is given a context and a [Pulse]. It shows that it
// makes progress by calling [Pulse.Beat], by emitting values through [Emit], and
// by saying when it only waits for work ([Pulse.Idle]). [Supervisor.Serve] runs
// it, one incarnation after the other; each incarnation is a generation with a
// number and a pulse of its own.
//
// # What is promised
//
//   - Silence is noticed once the TTL has passed since the last sign of life:
//     never before it, and as soon after it as a timer fires.
//   - A fence is exact. Once the supervisor has fenced a generation, no value it
//     emits is delivered: fence and emission exclude each other on one atomic word.
//   - A slow consumer is not a sick worker. While an emission is blocked the TTL
//     does not run; it starts anew when the emission returns. The same holds
//     while the worker is idle.
//   - A panic and a runtime.Goexit in the worker end its generation, never the
//     process. (A panic in a goroutine that the worker started is beyond reach.)
//   - Serve returns only when every goroutine that it started has returned,
//     except those that it has counted as abandoned.
//   - Restarts back off exponentially with full jitter. Only a generation that
//     ran for the healthy period resets the backoff, and nothing resets the
//     window in which restarts are counted: a worker that starts well and fails
//     soon, over and over, trips the limit.
//
// # What it does not do
//
// A goroutine cannot be killed. One that ignores its context beyond the grace is
// fenced, counted as abandoned and shown with its stack; it goes on using memory
// and CPU until it returns by itself. When more than [Config.MaxAbandoned] have
// piled up, Serve gives up with an [*AbandonedError], so that whatever supervises
// the process can start it afresh.
//
// The beat must come from the work itself. A ticker that beats beside the work
// keeps a hung worker alive, which is why there is no option for one.
package supervise
