// Package task is a worker's handler that runs commands: one process for each task.
//
// New takes a command line with replacement strings, as in GNU Parallel:
//
//	h, err := task.New([]string{"convert", "{}", "{.}.png"}, task.Config{})
//
// The payload of a task takes the place of {} (see Template for the others), or
// goes to the command's standard input when Config.Stdin is set. No shell is
// involved: a payload is one argument, whatever bytes it consists of. What the
// command writes on its standard output is the result; an exit status other than
// zero is an *ExitError, which carries the exit code and the end of what the command
// wrote on standard error.
//
// # What is promised
//
// Nothing is left running. Each command leads a process group of
// its own. When the task's context ends (its timeout, its cancellation, the worker's
// stop) the whole group gets SIGTERM, and SIGKILL after Config.Grace. What a command
// leaves behind in its group when it exits is killed too: at once when it holds
// neither standard output nor standard error, otherwise after the same grace. A command
// that dies by a SIGKILL that was not ours is handed to another replica, as a task
// is whose worker died. When this process itself is killed, Linux kills the
// commands it runs.
//
// Memory is bounded: a command whose output exceeds Config.MaxOutput is killed, and
// of standard error only the end is kept.
//
// # What is not
//
// A process that makes itself the leader of another group (setsid, daemons, the jobs of
// an interactive shell) has left the group, and is not killed. Neither are the children of a command when this
// process is killed with SIGKILL: the kernel kills only the command itself. The
// heartbeat of a command is that its process exists, which is told to the worker once a
// second: only a timeout bounds a silent one, and a worker's TTL should be some seconds.
// Commands that live longer than a task (co-processes) are not served here.
package task
