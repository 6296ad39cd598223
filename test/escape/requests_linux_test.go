package escape

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tenement"
)

var onRequests = []attempt{
	{name: "smuggle a request to another tenant", try: func(w *world) verdict {
		if !strings.Contains(w.seenAfter("/control", "POST / HTTP/1.1\r\nHost: {mallory}\r\nContent-Length: 5\r\n\r\nhello{hidden}"), "/control") {
			w.t.Error("what is no smuggling at all did not arrive")
		}
		for n, head := range []string{
			"POST / HTTP/1.1\r\nHost: {mallory}\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
			"POST / HTTP/1.1\r\nHost: {mallory}\r\nTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}",
			"POST / HTTP/1.1\r\nHost: {mallory}\r\nContent-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}",
			"POST / HTTP/1.1\r\nHost: {mallory}\r\nContent-Length: {length}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}",
			"POST / HTTP/1.1\r\nHost: {mallory}\r\nContent-Length: {length}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}",
			"POST / HTTP/1.1\r\nHost: {mallory}\r\nContent-Length: {length}\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
			"POST / HTTP/1.1\r\nHost: {mallory}\r\nX: y\rTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}",
			"GET / HTTP/1.1\r\nHost: {mallory}\r\nHost: {alice}\r\n\r\n",
			"GET http://{mallory}/ HTTP/1.1\r\nHost: {alice}\r\nContent-Length: {length}\r\n\r\n{hidden}",
			"POST / HTTP/1.1\r\nHost: {mallory}\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\r\n\r\nhello\r\n0\r\n\r\n",
		} {
			path := fmt.Sprintf("/smuggled%d", n)
			if strings.Contains(w.seenAfter(path, head), path) {
				w.t.Logf("alice has got it by %q", head)
				return succeeds
			}
		}
		return stopped
	}},
	{name: "answer another tenant's request", try: func(w *world) verdict {
		const one = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
		for _, answer := range []string{
			one + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
			"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
			"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged" + one,
		} {
			if w.answeredAfter(answer) {
				return succeeds
			}
		}
		return stopped
	}},
	{name: "forge forwarding headers", try: func(w *world) verdict {
		_, text := w.get(alice, "/headers", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "6.6.6.6", "X-Forwarded-Proto", "6.6.6.6",
			"Forwarded", "for=6.6.6.6", "X_Forwarded_For", "6.6.6.6", "X-Real-Ip", "6.6.6.6", "Connection", "X-Forwarded-For")
		if !strings.Contains(text, "X-Forwarded-For") {
			w.t.Errorf("no forwarding headers at all: %s", text)
		}
		return was(strings.Contains(strings.ReplaceAll(text, "X-Real-Ip:[6.6.6.6]", ""), "6.6.6.6"))
	}},
}

// seenAfter sends what hides a request for alice at a path in one for mallory, and gives
// what alice has seen since.
func (w *world) seenAfter(path, text string) string {
	w.t.Helper()
	hidden := "GET " + path + " HTTP/1.1\r\nHost: " + host(alice) + "\r\n\r\n"
	text = strings.NewReplacer("{mallory}", host(mallory), "{alice}", host(alice), "{hidden}", hidden, "{length}", strconv.Itoa(len("0\r\n\r\n")+len(hidden)), "/smuggled", path).Replace(text)
	askOne("tcp", strings.TrimPrefix(w.base, "http://"), text)
	_, seen := w.get(alice, "/seen")
	return seen
}

// answeredAfter has mallory answer anything at all, and reports whether the next one on the
// same connection, who asks for alice, gets something that is not alice's.
func (w *world) answeredAfter(answer string) bool {
	w.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
	must(w.t, err)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	from := bufio.NewReader(conn)
	for n, id := range []tenement.InstanceID{mallory, alice, bob} {
		path := "/"
		if n == 0 {
			path = "/raw?answer=" + url.QueryEscape(answer)
		}
		req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+host(id)+path, nil)
		must(w.t, err)
		must(w.t, req.Write(conn))
		resp, err := http.ReadResponse(from, req)
		for err == nil && resp.StatusCode < http.StatusOK { // 1xx go before the answer
			resp, err = http.ReadResponse(from, req)
		}
		if err != nil {
			return false // the connection ends here, and nothing is mistaken for something else
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return false
		}
		if n > 0 && !strings.HasPrefix(string(text), id.Name) {
			w.t.Logf("after %q %s: %d %q", answer, id, resp.StatusCode, text)
			return resp.StatusCode == http.StatusOK
		}
	}
	return false
}
