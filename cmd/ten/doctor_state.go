package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"tenement"
	"tenement/internal/daemon"
	"tenement/internal/store"
)

// newestCopy is what --restore without a name means.
const newestCopy = "newest"

// oldCopy is an age at which the daemon should have made another copy, had it run.
const oldCopy = 48 * time.Hour

// checkRegistry reads all of the registry and of its copies, which takes seconds per
// million instances, and changes nothing.
func checkRegistry(ctx context.Context, e *examination) []finding {
	if e.dataDir == "" {
		return found(verdictWarn, "not known without a configuration", "")
	}
	dir := daemon.StateDir(e.dataDir)
	return append(stateFinding(store.CheckState(ctx, dir)), copyFindings(ctx, dir, time.Now())...)
}

func stateFinding(contents store.Contents, err error) []finding {
	switch tenement.CodeOf(err) {
	case "":
		return found(verdictOK, fmt.Sprintf("%s, version %d", instances(contents.Instances), contents.Version), "")
	case tenement.CodeNotFound:
		return found(verdictOK, "none yet; the daemon will make it", "")
	}
	return failed(err)
}

func copyFindings(ctx context.Context, dir string, now time.Time) []finding {
	copies, err := store.Copies(dir)
	switch {
	case err != nil:
		return failed(err)
	case len(copies) == 0:
		return []finding{{Check: "copies of the registry", Verdict: verdictOK, Detail: "none yet; the daemon makes one a day"}}
	}
	var findings []finding
	for i, c := range copies {
		f := finding{Check: "copy " + filepath.Base(c.Path), Verdict: verdictOK}
		contents, err := store.CheckCopy(ctx, c.Path)
		switch {
		case err != nil:
			f.Verdict, f.Detail, f.Hint = verdictWarn, err.Error(), tenement.HintOf(err)
			if tenement.CodeOf(err) == tenement.CodeInternal {
				f.Hint = "it cannot be restored: move it away"
			}
		default:
			f.Detail = fmt.Sprintf("%s, good, %s", ago(c.Made, now), instances(contents.Instances))
			if i == 0 && now.Sub(c.Made) > oldCopy {
				f.Verdict, f.Hint = verdictWarn, "the daemon makes one a day while it runs; if it did, its log says what was in the way"
			}
		}
		findings = append(findings, f)
	}
	return findings
}

func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}

// restoreRegistry is the way out of a registry that is damaged, gone or too new.
func (a *app) restoreRegistry(ctx context.Context, copy string) error {
	switch {
	case copy == "":
		return &tenement.Error{
			Code: tenement.CodeInvalid, Err: errors.New("--restore= names no copy"),
			Hint: "ten doctor lists the copies; --restore alone takes the newest good one",
		}
	case copy == newestCopy:
		copy = ""
	}
	dataDir, err := a.findDataDir()
	if err != nil {
		return err
	}
	r, err := store.Restore(ctx, daemon.StateDir(dataDir), copy, time.Now())
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			From      string `json:"from"`
			Instances int    `json:"instances"`
			Aside     string `json:"aside,omitempty"`
		}{r.From, r.Instances, r.Aside})
	}
	fmt.Fprintf(a.stdout, "restored %s from %s\n", instances(r.Instances), visible(r.From))
	if r.Aside != "" {
		fmt.Fprintf(a.stdout, "what was there is kept as %s\n", visible(r.Aside))
	}
	return nil
}
