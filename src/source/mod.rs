//! Where LLB sources come from: images, local contexts, git, http.
