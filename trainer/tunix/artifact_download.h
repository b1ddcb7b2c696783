// One file of a job from the service into a sink, however often the transfer breaks.
#pragma once

#include <string>

#include "trainer/tunix/job_client.h"
#include "trainer/tunix/service_caller.h"

namespace gemma_sft {

// See JobClient::download. Goes on with a Range only where the service still has the same file (If-Range), begins again
// where an answer is not what was asked for, and follows redirects to other servers without the key. Throws Error(kIo)
// when the file has become another, and what ServiceCaller throws.
void download_artifact(ServiceCaller& caller, const std::string& id, const Artifact& artifact, ArtifactSink& sink);

}  // namespace gemma_sft
