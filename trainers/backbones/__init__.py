"""Networks that more than one method uses: frames or clips in, feature maps out."""
