// What changes in a text, for people: lines with - and +, with some of what is around them.
#ifndef RP_CLI_TEXT_DIFF_H
#define RP_CLI_TEXT_DIFF_H

#include <stdbool.h>

#include "base/buf.h"

// Appends a unified diff without file names ("@@ -1,4 +1,5 @@"); nothing when the texts are the same. Of texts of very many lines
// the part between the first and the last change is shown as a whole.
void rp_cli_text_diff(const char *before, const char *after, struct rp_buf *out);

#endif
