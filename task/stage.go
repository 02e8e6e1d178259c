package task

import "time"

// stage is how far the life of a command has come.
//
//	running ─────── it exits, nobody else holds its output ─────────► ended
//	   │  └──────── it exits, somebody does ────► lingering ────────► ended
//	   │ stop: the context ended, too much output     │ grace is over
//	   ▼                                              │
//	terminating: SIGTERM to the group ◄───────────────┘ ────────────► ended
//	   │ grace is over
//	   ▼
//	killing: SIGKILL to the group ─ it exits; whoever escaped the
//	         group has another grace to close the output ───────────► ended
//
// At the end all that is left of the group is killed, and then the command is reaped.
// In this order, because its process id, which is the group's, cannot be given to
// somebody else before it is reaped: a signal never reaches a stranger. (Where there
// are no descriptors of processes it is reaped earlier: see process_portable.go.)
type stage uint8

const (
	running stage = iota
	lingering
	terminating
	killing
)

// beatEvery is how often the replica of a running command gives a sign of life.
const beatEvery = time.Second
