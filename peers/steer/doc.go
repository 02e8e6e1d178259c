// Package steer runs package fleet over every broker that Millrace has a driver for, the
// real ones: workers on connections of their own are seen, scaled, retired, paused and
// drained through each, and nothing is left behind there.
package steer
