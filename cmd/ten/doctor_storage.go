package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"tenement/internal/config"
	"tenement/internal/disk"
)

// checkStorageQuotas says who would keep the quotas of the data directory, which need
// not be there yet. It warns where a quota that is set is only measured.
func checkStorageQuotas(_ context.Context, e *examination) []finding {
	if e.dataDir == "" {
		return found(verdictWarn, "not looked at: it is not known where the data directory is", "")
	}
	kept, err := disk.ProjectQuotas(existing(e.dataDir))
	switch {
	case err != nil:
		return failed(err)
	case kept:
		return found(verdictOK, "the file system of "+e.dataDir+" keeps project quotas, of isolated instances of a daemon that is root", "")
	}
	detail := "the file system of " + e.dataDir + " keeps no project quotas: what is stored is measured every few seconds"
	if e.config == nil || !hasQuota(e.config) {
		return found(verdictOK, detail, "")
	}
	return found(verdictWarn, detail, "ext4 made with -O quota,project, or XFS, keeps them by itself when it is mounted with prjquota")
}

func hasQuota(c *config.Config) bool {
	for _, s := range c.Services {
		if s.Limits.Storage > 0 {
			return true
		}
	}
	return false
}

// existing is the nearest directory at or above path that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}
