// Command reverseproxy is the standard library's proxy and nothing else: what a Go
// program costs that forwards requests.
package main

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: reverseproxy PORT BACKEND-PORT")
		os.Exit(2)
	}
	backend := &url.URL{Scheme: "http", Host: "127.0.0.1:" + os.Args[2]}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Addr: "127.0.0.1:" + os.Args[1], Protocols: protocols, ReadHeaderTimeout: time.Minute,
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(backend)
				r.Out.Host = r.In.Host
				r.SetXForwarded()
			},
			// As many idle connections as the others may keep.
			Transport: &http.Transport{MaxIdleConns: 128, MaxIdleConnsPerHost: 128, DisableCompression: true},
		},
	}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}
