// All images at once: docker buildx bake -f docker/docker-bake.hcl     (from the repository's root)
// One: … float8_weight_only     CPU builds: TORCH=cpu docker buildx bake …     Show only: --print
variable "BASE_IMAGE" { default = "python:3.11.13-slim-bookworm" }
variable "NSIGHT" { default = "nvidia" }
variable "TORCH" { default = "cuda" }
variable "REVISION" { default = "unknown" }

group "default" { targets = ["problems"] }

target "problems" {
  name       = problem
  matrix     = { problem = ["cuda_graph_memory", "float8_weight_only", "gemlite_autotune", "moe_batch_scaling"] }
  context    = "."
  dockerfile = "problems/${problem}/Dockerfile"
  tags       = [problem]
  args = {
    BASE_IMAGE = BASE_IMAGE
    NSIGHT     = NSIGHT
    TORCH      = TORCH
    REVISION   = REVISION
  }
}
