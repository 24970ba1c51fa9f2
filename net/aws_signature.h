// Signatures of requests to S3: AWS Signature Version 4, in the Authorization header, for requests without a body.
// libcurl has it as well (CURLOPT_AWS_SIGV4), but up to 8.14 at least it takes a '+' in the value of a query for a
// space, and continuation tokens and prefixes have them.
//
// Thread: pure functions, any.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "net/credentials.h"
#include "net/url.h"

namespace wormhole {

// The headers ("Name: value") with which the request is signed; the request must go out with just this method and URL.
// `now`: seconds since the epoch; the server takes what is at most 15 minutes off. The secret is not in them.
std::vector<std::string> aws_signature(const std::string& method, const Url& url, const AwsKeys& keys,
                                       const std::string& region, int64_t now);

}  // namespace wormhole
