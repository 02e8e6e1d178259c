package nsq

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/door"
)

// A node whose disk is busy takes longer to make a channel than it has to answer: it is asked
// again, for longer than one that does not take the request.
func TestABusyNodeIsAskedAgain(t *testing.T) {
	t.Parallel()
	on := serve(t, door.Config{})
	busyUntil := time.Now().Add(apiPatience + apiPatience/2)
	pass := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: on.http})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/create") && time.Now().Before(busyUntil) {
			<-r.Context().Done() // until nobody waits for the answer any more
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	b := opened(t, "nsq://"+on.tcp+"?http="+front.Listener.Addr().String())
	b.api.client.Timeout = apiPatience / 8
	if err := b.Declare(t.Context(), "t", "c"); err != nil {
		t.Error(err)
	}
	if _, err := on.Depth("t", "c"); err != nil {
		t.Error(err)
	}
}
