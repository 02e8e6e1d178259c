package differ

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// web sends an HTTP request and notes the answer.
func web(method, target string, body ...string) func(*session) {
	if method == http.MethodGet && strings.HasPrefix(target, "/stats") {
		return steady(target)
	}
	return func(s *session) { s.web("http://"+s.node.HTTP, method, target, strings.Join(body, "")) }
}

// steady is a GET that is repeated until the answer has been the same for a while: nsqd
// moves what is published from the topic to its channels a moment later.
func steady(target string) func(*session) {
	return settled(func(s *session) { s.web("http://"+s.node.HTTP, http.MethodGet, target, "") })
}

// settled repeats a step, which notes one line, until that has been the same for a while.
func settled(step func(*session)) func(*session) {
	return func(s *session) {
		was, same := "", 0
		for until := time.Now().Add(patience); ; time.Sleep(12 * time.Millisecond) {
			step(s)
			is := s.log[len(s.log)-1]
			if same++; is != was {
				was, same = is, 1
			}
			if same == 4 || time.Now().After(until) {
				return
			}
			s.log = s.log[:len(s.log)-1]
		}
	}
}

// gone waits until the topic is not there any more.
func gone(topic string) func(*session) {
	return func(s *session) {
		for until := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			web("GET", "/stats?format=json&include_mem=0&include_clients=0&topic="+topic)(s)
			is := s.log[len(s.log)-1]
			if strings.Contains(is, `topics\":null`) || time.Now().After(until) {
				return
			}
			s.log = s.log[:len(s.log)-1]
		}
	}
}

// webTLS is web over HTTPS.
func webTLS(method, target string, body ...string) func(*session) {
	return func(s *session) { s.web("https://"+s.node.HTTPS, method, target, strings.Join(body, "")) }
}

// chunked is web with a body whose length is not said beforehand.
func chunked(method, target, body string) func(*session) {
	return func(s *session) {
		s.request("http://"+s.node.HTTP, method, target, io.MultiReader(strings.NewReader(s.expand(body))))
	}
}

// announced sends the head of a request, with the size of a body that does not come.
func announced(method, target string, size int) func(*session) {
	return func(s *session) {
		conn, err := net.Dial("tcp", s.node.HTTP)
		if err != nil {
			s.abandon("dial: %v", err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: nsqd\r\nContent-Length: %d\r\n\r\n", method, s.expand(target), size)
		if err != nil {
			s.abandon("write: %v", err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			s.note("%s %s: %v", method, target, err)
			return
		}
		s.answer(method, target, resp)
	}
}

func (s *session) web(base, method, target, body string) {
	var content io.Reader = http.NoBody
	if body != "" {
		content = strings.NewReader(s.expand(body))
	}
	s.request(base, method, target, content)
}

// client follows no redirects: they are compared.
func client() *http.Client {
	return &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		},
	}
}

func (s *session) request(base, method, target string, content io.Reader) {
	target = s.expand(target)
	req, err := http.NewRequest(method, base+target, content)
	if err != nil {
		s.abandon("%s %s: %v", method, target, err)
	}
	resp, err := client().Do(req)
	if err != nil {
		s.note("%s %s: %s", method, target, s.normal(err.Error()))
		return
	}
	s.answer(method, target, resp)
}

// answer notes what came back.
func (s *session) answer(method, target string, resp *http.Response) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	line := fmt.Sprintf("%s %s: %d", method, target, resp.StatusCode)
	for _, name := range headers(resp.Header) {
		line += fmt.Sprintf(" %s=%s", name, s.normal(strings.Join(resp.Header[name], ",")))
	}
	if err != nil {
		line += " broken: " + err.Error()
	}
	s.note("%s %s", line, tell(s.normal(string(body))))
}

// headers are the names of those that are compared. The length of a body changes with
// the ports and times in it.
func headers(h http.Header) []string {
	var names []string
	for name := range h {
		if name != "Date" && name != "Content-Length" && name != "Connection" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// What an answer has in it that is not the same twice.
var passing = []struct {
	found *regexp.Regexp
	name  string
}{
	{regexp.MustCompile(`"(start_time|connect_ts|connected)":\d+`), `"$1":TIME`},
	{regexp.MustCompile(`start_time \S+`), `start_time TIME`},
	{regexp.MustCompile(`uptime \S+`), `uptime TIME`},
	{regexp.MustCompile(`connected: \S+`), `connected: TIME`},
	{regexp.MustCompile(`"((?:heap|gc|next)_\w+)":\d+`), `"$1":N`},
	// nsqd counts here what does not fit into memory; in Millrace all is on the disk.
	{regexp.MustCompile(`"backend_depth":\d+`), `"backend_depth":N`},
	{regexp.MustCompile(`be-depth: \d+ *`), `be-depth: N `},
	{regexp.MustCompile(`"memory_depth":\d+`), `"memory_depth":N`},
	// nsqd knows no names for the cipher suites of TLS 1.3.
	{regexp.MustCompile(`"tls_cipher_suite":"[^"]+"`), `"tls_cipher_suite":"SUITE"`},
	// To nsqlookupd a node has the port of its connection, and it names itself by another.
	{regexp.MustCompile(`"remote_address(es)?":(\["[\d.]+:\d+/[\d.]+:\d+"\]|"[\d.]+:\d+")`), `"remote_address$1":ADDR`},
	{regexp.MustCompile(`(?m)^(   (?:heap|gc|next)_\w+ *\t)\d+`), `${1}N`},
}

// normal gives what is not the same twice a name.
func (s *session) normal(text string) string {
	for _, c := range s.conns {
		text = regexp.MustCompile(`([^" ]:)`+c.port+`\b`).ReplaceAllString(text, "${1}"+c.name)
	}
	for _, list := range []string{`"clients":`, `"producers":`} {
		text = s.ownClients(text, list)
	}
	for _, p := range passing {
		text = p.found.ReplaceAllString(text, p.name)
	}
	for what, addr := range map[string]string{"TCP": s.node.TCP, "HTTP": s.node.HTTP, "HTTPS": s.node.HTTPS} {
		if _, port, err := net.SplitHostPort(addr); err == nil {
			text = regexp.MustCompile(`([^" ]:|_|port": ?)`+port+`\b`).ReplaceAllString(text, "${1}"+what)
		}
	}
	text = names.ReplaceAllStringFunc(text, sorted)
	if host, _, err := net.SplitHostPort(s.node.TCP); err == nil {
		text = regexp.MustCompile(regexp.QuoteMeta(host)+`\b`).ReplaceAllString(text, "HOST")
	}
	return s.named(s.ownProducers(text))
}

// names are lists of names, which nsqlookupd tells in any order.
var names = regexp.MustCompile(`"(topics|channels)":\["[^]]*"\]`)

func sorted(list string) string {
	key, values, _ := strings.Cut(strings.TrimSuffix(list, "]"), "[")
	all := strings.Split(values, ",")
	slices.Sort(all)
	return key + "[" + strings.Join(all, ",") + "]"
}

// ownProducers is ownClients for the list at the end of GET /stats as text.
func (s *session) ownProducers(text string) string {
	const title = "\nProducers:\n"
	before, producers, found := strings.Cut(text, title)
	if !found {
		return text
	}
	var own []string
	for line := range strings.Lines(producers) {
		for name := range s.conns {
			if strings.Contains(line, ":"+name+" ") {
				own = append(own, line)
			}
		}
	}
	if len(own) == 0 {
		return before + "\nProducers: None\n"
	}
	slices.Sort(own)
	return before + title + strings.Join(own, "")
}

// ownClients leaves, of the lists of clients in the answer to GET /stats, those that the
// script has, in an order of its own: other scripts run at the same time.
func (s *session) ownClients(text, list string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, list+"[")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		rest = "[" + rest
		decoder := json.NewDecoder(strings.NewReader(rest))
		var clients []json.RawMessage
		if err := decoder.Decode(&clients); err != nil {
			return out.String() + list + rest
		}
		var own []string
		for _, client := range clients {
			if !strings.Contains(string(client), `"client_id"`) {
				own = append(own, string(client)) // nsqlookupd's producers are nodes
				continue
			}
			for name := range s.conns {
				if strings.Contains(string(client), `:`+name+`"`) {
					own = append(own, string(client))
				}
			}
		}
		slices.Sort(own)
		answer := "[" + strings.Join(own, ",") + "]"
		if len(own) == 0 && len(clients) > 0 {
			answer = "null" // what nsqd says when there are none
		}
		out.WriteString(list + answer)
		text = rest[decoder.InputOffset():]
	}
}
