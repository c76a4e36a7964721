// Where encoders of BERT's kind keep their parts, and where they compute otherwise than BERT.
#pragma once

#include <string>

namespace lora {

struct EncoderLayout {
  std::string model_type;
  std::string classes;  ///< what transformers' class names start with
  std::string root;     ///< attribute that holds the bare model
  std::string blocks;   ///< below root; behind it the number of a block

  // Below a block.
  std::string query, key, value, attention_out, attention_norm, up, down, down_norm;

  // Whole paths. `language_bias` is a second name of the decoder's bias; empty where there is none.
  std::string transform, transform_norm, decoder, language_bias;
  std::string pooler, sequence_head;
  std::string token_head = "classifier";

  bool counts_positions = false;  ///< tokens but padding, from padding's own id on
  bool has_head_first = false;    ///< its class makes the head before the bare model
  bool drops_attention_output = true;
  bool drops_before_pooler = false;  ///< the classifier's dropout, once more
  std::string pooler_activation = "tanh";
  std::string transform_activation;  ///< empty: the configuration's
};

/// Null for a model_type that is no such encoder.
const EncoderLayout* find_encoder_layout(const std::string& model_type);

}  // namespace lora
