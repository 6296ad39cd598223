package api

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"math/big"
	"strings"

	"tenement"
)

// A token is tokenPrefix, 32 random bytes as 43 digits of base 62, and the CRC-32
// of all that as 6 more. The prefix lets scanners find leaked tokens, the checksum
// lets a mistyped one be refused without a look at the registry. A fast hash is
// enough to keep it: nobody guesses 256 bits.
const (
	tokenPrefix    = "ten_"
	tokenBytes     = 32
	tokenDigits    = 43 // base 62 digits of 2^256
	checksumDigits = 6  // base 62 digits of 2^32
	base62         = 62
)

// TokenHash is what the registry keeps of a token: the SHA-256 of the secret.
type TokenHash [sha256.Size]byte

// NewToken makes a secret from the system's randomness and the hash to keep of it.
func NewToken() (secret string, hash TokenHash) {
	var random [tokenBytes]byte
	rand.Read(random[:]) // never fails, see crypto/rand
	body := tokenPrefix + digits(new(big.Int).SetBytes(random[:]), tokenDigits)
	secret = body + checksum(body)
	return secret, sha256.Sum256([]byte(secret))
}

// ParseToken is the hash by which the registry knows secret. Anything that cannot
// have come from [NewToken] is an error with CodeUnauthenticated, so that it costs
// no look at the registry.
func ParseToken(secret string) (TokenHash, error) {
	body := len(secret) - checksumDigits
	if body != len(tokenPrefix)+tokenDigits || !strings.HasPrefix(secret, tokenPrefix) ||
		checksum(secret[:body]) != secret[body:] {
		return TokenHash{}, &tenement.Error{
			Code: tenement.CodeUnauthenticated, Op: "read token",
			Err:  errors.New("this is not a token"),
			Hint: "a token begins with " + tokenPrefix + " and is copied whole; make one with: ten token-gen",
		}
	}
	return sha256.Sum256([]byte(secret)), nil
}

func checksum(body string) string {
	return digits(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), checksumDigits)
}

// digits writes n in base 62 with leading zeros.
func digits(n *big.Int, width int) string {
	s := n.Text(base62)
	return strings.Repeat("0", width-len(s)) + s
}
