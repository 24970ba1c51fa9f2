// Who we are to the server: from the URL, or from files that may change while the mount is up (a token that is
// renewed). Files are read when they are first needed and again after a 401. Secrets are in no log, no error and no
// command line.
//
// Thread: any one.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"

namespace wormhole {

// What requests to S3 are signed with (AWS Signature Version 4).
struct AwsKeys {
  std::string id, secret;
  std::string session_token;  // of temporary ones
};

struct CredentialOptions {
  std::string user, password;  // of the URL
  std::string token_file;      // one line: sent as "Authorization: Bearer ..."
  std::string header_file;  // lines "Name: value", sent with each request; empty lines and those with '#' are skipped
  std::string netrc_file;   // as curl reads it: read by libcurl with each request
  AwsKeys aws_keys;         // of the environment; empty: requests are not signed, unless there is a file
  std::string aws_file;     // as the AWS tools have it; goes before the environment's
  std::string aws_profile = "default";  // its section
  std::string aws_region = "us-east-1";
};

class Credentials {
 public:
  explicit Credentials(CredentialOptions options) : options_(std::move(options)), keys_(options_.aws_keys) {}

  // Reads the files. kInvalid or kForbidden name the file and the line, never the content.
  Status load();
  // After a 401: reads them again. True when a second attempt is worth it: something is different, or there are files
  // that the server may just not know yet.
  bool reload();

  bool any() const { return !options_.user.empty() || !keys_.id.empty() || has_files(); }
  // Besides 401: S3 says 403, and 400 when a token has expired.
  bool may_be_refused(int status) const { return !options_.aws_file.empty() && (status == 403 || status == 400); }
  const CredentialOptions& options() const { return options_; }
  const std::string& token() const { return token_; }
  const std::vector<std::string>& headers() const { return headers_; }
  const AwsKeys& aws() const { return keys_; }

 private:
  bool has_files() const {
    return !options_.token_file.empty() || !options_.header_file.empty() || !options_.netrc_file.empty() ||
           !options_.aws_file.empty();
  }

  const CredentialOptions options_;
  std::string token_;
  std::vector<std::string> headers_;
  AwsKeys keys_;
};

}  // namespace wormhole
