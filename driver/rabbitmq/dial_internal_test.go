package rabbitmq

import (
	"crypto/tls"
	"fmt"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// However a server that does not like a client's certificate is heard, or not, that is what is
// wrong; without such a certificate it is something else.
func TestAClientsCertificateThatIsNotAcceptedIsNamed(t *testing.T) {
	mine := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, nil }
	for _, err := range []error{
		syscall.ECONNRESET, syscall.EPIPE, amqp.ErrClosed, fmt.Errorf("read: %w", syscall.ECONNRESET),
	} {
		for _, with := range []bool{true, false} {
			a := &address{tls: new(tls.Config)}
			if with {
				a.tls.GetClientCertificate = mine
			}
			if said := a.explain("host:5671", err).Error(); strings.Contains(said, "this client's certificate") != with {
				t.Errorf("with a certificate: %v; %v is explained as %q", with, err, said)
			}
		}
	}
}
