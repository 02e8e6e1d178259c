// Package worker answers the tasks of a queue with supervised replicas of a handler.
package worker
