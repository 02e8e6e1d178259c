// Package drivertest is the conformance suite that every driver passes, against the real
// broker: what millrace.Broker and millrace.Subscription promise, claim by claim. A test
// of a driver is
//
//	func TestConformance(t *testing.T) {
//		drivertest.Run(t, func(t *testing.T) drivertest.Harness {
//			return drivertest.Harness{Open: func(t *testing.T) millrace.Broker { … }}
//		})
//	}
//
// Where a broker cannot keep a claim, the driver's Harness says so and why, in one
// sentence that belongs in the driver's documentation too. The suite uses real time,
// because brokers do, and topics with random names, so that a broker can be used by
// several tests and need not be emptied.
//
// It does not test how a driver reconnects, or how fast it is.
package drivertest
