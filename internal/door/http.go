package door

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// How long a client may take for the body of its request, and from its request on until
// it has taken the answer.
const (
	bodyWithin   = time.Minute
	answerTaken  = 2 * time.Minute
	headerWithin = 10 * time.Second
	idleWithin   = 2 * time.Minute
	maxHeader    = 64 << 10
)

// web is the HTTP door: one for plain HTTP, one for HTTPS.
type web struct {
	*Door
	secure  bool
	guard   http.Handler           // in front of the routes
	process []prometheus.Collector // of the Go runtime and the process
}

// request is an HTTP request, and what whoever has sent it is allowed.
type request struct {
	*http.Request
	grant *Grant
}

// Handler returns the HTTP door: nsqd's API, nsqlookupd's for this one node, and /metrics.
// secure says that it is reached over TLS, which the Config may require.
func (d *Door) Handler(secure bool) http.Handler {
	s := &web{Door: d, secure: secure, process: []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}}
	refusing := func(status int, reason string) http.Handler {
		return s.serve(route{access: anybody, answer: func(*request) answer { return refuse(status, reason) }})
	}
	routes := newRouter(refusing)
	for _, r := range s.routes() {
		routes.handle(r.method, r.path, s.serve(r))
	}
	// What a page from elsewhere asks of a door that only the browser it is shown in can
	// reach, is not done.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(refusing(http.StatusForbidden, "CROSS_ORIGIN"))
	s.guard = protection.Handler(routes)
	return s
}

// ServeHTTP implements http.Handler.
func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.recover(w, r)
	control := http.NewResponseController(w)
	now := time.Now()
	if r.ContentLength != 0 {
		_ = control.SetReadDeadline(now.Add(bodyWithin)) // a test's recorder has none
	}
	_ = control.SetWriteDeadline(now.Add(answerTaken))
	if s.cfg.TLSRequired && !s.cfg.TLSExceptHTTP && !s.secure {
		// The space is nsqd's. Its clients go on to that port.
		body := fmt.Appendf(nil, `{"message": "TLS_REQUIRED", "https_port": %d}`, s.cfg.HTTPSPort)
		answer{status: http.StatusForbidden, body: body, json: true}.write(w)
		return
	}
	s.guard.ServeHTTP(w, r)
}

// recover keeps a mistake in one handler from ending more than its request.
func (s *web) recover(w http.ResponseWriter, r *http.Request) {
	switch p := recover(); p {
	case nil:
	case http.ErrAbortHandler:
		panic(p)
	default:
		s.cfg.Logger.Error("panic in an HTTP handler", "method", r.Method, "uri", r.URL.RequestURI(), "panic", p)
		refuse(http.StatusInternalServerError, "INTERNAL_ERROR").write(w)
	}
}

// serve answers the requests of a route.
func (s *web) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		grant, refusal := s.admit(r, rt.access)
		a := refusal
		if grant != nil {
			a = rt.answer(&request{r, grant})
		}
		if !rt.quiet {
			s.cfg.Logger.Info("http", "status", a.status, "method", r.Method, "uri", r.URL.RequestURI(),
				"client", r.RemoteAddr, "took", time.Since(began))
		}
		switch {
		case a.by != nil:
			a.by.ServeHTTP(w, r)
		case rt.plain:
			a.writePlain(w)
		default:
			a.write(w)
		}
	})
}

// access says whether a grant is enough for a request with these parameters.
type access func(g *Grant, params url.Values) bool

// anybody needs no token.
var anybody access

// known is anybody with a token. What is answered goes by what the token allows.
func known(*Grant, url.Values) bool { return true }

// operator is who is admin of everything.
func operator(g *Grant, _ url.Values) bool { return g.AllowsAll() }

// onTopic is who may do that with the topic named.
func onTopic(action Action) access {
	return func(g *Grant, params url.Values) bool {
		// Without a topic the request is refused for that.
		return !params.Has("topic") || g.Allows(action, params.Get("topic"), "")
	}
}

// onChannel is who is admin of the channel named.
func onChannel(g *Grant, params url.Values) bool {
	return !params.Has("topic") || g.Allows(Admin, params.Get("topic"), params.Get("channel"))
}

// onQueue is who may consume from the channel named, or from all of the topic's.
func onQueue(g *Grant, params url.Values) bool {
	return !params.Has("topic") || g.Allows(Subscribe, params.Get("topic"), params.Get("channel"))
}

// admit returns what the sender of a request is allowed, or nil and what to tell it.
func (s *web) admit(r *http.Request, may access) (*Grant, answer) {
	if s.cfg.Tokens == nil || may == nil {
		return everything, answer{}
	}
	grant, ok := s.cfg.Tokens.Grant(bearer(r))
	if !ok {
		return nil, answer{status: http.StatusUnauthorized, reason: "UNAUTHORIZED", challenge: true}
	}
	// An error in the parameters is told by the handler, which parses them again.
	params, _ := url.ParseQuery(r.URL.RawQuery)
	if !may(grant, params) {
		return nil, refuse(http.StatusForbidden, "FORBIDDEN")
	}
	return grant, answer{}
}

// bearer returns the token that a request shows, or "", which is none.
func bearer(r *http.Request) string {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	_, password, _ := r.BasicAuth() // what browsers and URLs can do
	return password
}
