package api

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
)

// openAPI is the document as it is served, read by an independent library.
func openAPI(t *testing.T, s *Server) validator.Validator {
	t.Helper()
	document, err := libopenapi.NewDocument(s.document)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(document)
	for _, err := range errs {
		t.Error(err)
	}
	return v
}

// TestOpenAPIDocumentIsValid against the schema of OpenAPI 3.1.
func TestOpenAPIDocumentIsValid(t *testing.T) {
	t.Parallel()
	if valid, errs := openAPI(t, newTestServer(t, newFakeBackend())).ValidateDocument(); !valid {
		for _, err := range errs {
			t.Error(err, err.SchemaValidationErrors)
		}
	}
}

// TestAnswersAreAsDocumented: a right request of every route and what is answered, both
// to somebody who may and to somebody who may not, are what the document says.
func TestAnswersAreAsDocumented(t *testing.T) {
	t.Parallel()
	b := newFakeBackend()
	s := newTestServer(t, b)
	v := openAPI(t, s)
	for name, header := range map[string]string{"admin": "Bearer " + b.secret(t, ""), "stranger": "Bearer x"} {
		c := caller{client: &http.Client{}, base: overTCP(t, s), header: header}
		for _, r := range routes {
			if r.id == "" {
				continue // it is the document
			}
			if r.id == "spawn" { // and is there again later
				b.mu.Lock()
				delete(b.instances, alice)
				b.mu.Unlock()
			}
			resp, body := c.send(t, b, r)
			if r.id == "spawn" && name == "admin" && resp.StatusCode != http.StatusCreated {
				t.Errorf("spawn: %s", resp.Status)
			}
			resp.Body = io.NopCloser(bytes.NewReader(body))
			valid, errs := v.ValidateHttpResponse(resp.Request, resp)
			if !valid {
				for _, err := range errs {
					t.Errorf("%s %s %s: %v %v", name, r.method, r.path, err, err.SchemaValidationErrors)
				}
			}
		}
	}
}
