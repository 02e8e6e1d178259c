//go:build race

package gather_test

const raceDetector = true
