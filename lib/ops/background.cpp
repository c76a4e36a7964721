#include "ops/background.h"

#include <system_error>
#include <utility>

namespace lora {

Background::Background(int threads, bool helps) : helps_(helps) {
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    // The system gives no more threads: those already here do the work.
  }
}

Background::~Background() {
  const std::lock_guard lock(mutex_);
  is_closing_ = true;
  jobs_.clear();
  changed_.notify_all();
}

void Background::add(std::function<void()> job) {
  if (threads_.empty()) return job();
  const std::lock_guard lock(mutex_);
  if (!failure_) jobs_.push_back(std::move(job));
  changed_.notify_one();
}

bool Background::help() {
  std::unique_lock lock(mutex_);
  if (jobs_.empty()) return false;
  run_one(lock);
  return true;
}

void Background::settle() {
  std::unique_lock lock(mutex_);
  while (helps_ && !jobs_.empty()) run_one(lock);
  changed_.wait(lock, [this] { return running_ == 0 && jobs_.empty(); });
  if (failure_) std::rethrow_exception(failure_);
}

void Background::run_one(std::unique_lock<std::mutex>& lock) {
  const std::function<void()> job = std::move(jobs_.front());
  jobs_.pop_front();
  ++running_;
  lock.unlock();
  std::exception_ptr failure;
  try {
    job();
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  --running_;
  if (failure && !failure_) {
    failure_ = failure;
    jobs_.clear();
  }
  changed_.notify_all();
}

void Background::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return is_closing_ || !jobs_.empty(); });
    if (is_closing_) return;
    run_one(lock);
  }
}

}  // namespace lora
